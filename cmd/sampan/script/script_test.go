package script_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/script"
	"github.com/sampan-project/sampan/core/wire"
)

// daemon answers what the verbs ask before they change anything.
func daemon(t *testing.T) string {
	t.Helper()
	min := int64(576)
	answers := map[string]any{
		"/_ping":             "OK",
		"/sampan/v1/schemas": []wire.Schema{{Kind: "network", Driver: "bridge", Attributes: []wire.Attribute{{Name: "mtu", Type: "int", Min: &min}}}},
		"/containers/json":   []wire.ContainerSummary{},
		"/networks":          []wire.NetworkInspect{},
		"/volumes":           wire.VolumeList{},
		"/images/json":       []wire.ImageSummary{},
	}
	version := regexp.MustCompile(`^/v[0-9.]+`)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.50")
		answer, ok := answers[version.ReplaceAllString(r.URL.Path, "")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = map[string]string{"message": "not here: " + r.URL.Path}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return "tcp://" + strings.TrimPrefix(s.URL, "http://")
}

// sampan runs a command line and returns what it printed and its exit code.
func sampan(t *testing.T, host string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	c := cli.New(strings.NewReader(""), &out, &errs)
	c.Globals.Hosts = []string{host}
	root := &cobra.Command{Use: "sampan"}
	cli.Prepare(root, c.Out, c.Err)
	cli.Groups(root)
	for _, verb := range []func(*cli.CLI) *cobra.Command{script.NewApply, script.NewPlan, script.NewDestroy, script.NewBuild, script.NewScript, script.NewGraph} {
		root.AddCommand(verb(c))
	}
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	if m := cli.Message(err); m != "" {
		errs.WriteString(m + "\n")
	}
	return out.String(), errs.String(), cli.Code(err)
}

// folder makes the files of an archive the working directory.
func folder(t *testing.T, a *txtar.Archive) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range a.Files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

// TestWrongScripts runs the scenario of wrong scripts without a daemon of its own: it needs none to
// find the mistakes.
func TestWrongScripts(t *testing.T) {
	a, err := txtar.ParseFile("../../../tests/script/testdata/wrong_scripts.txtar")
	if err != nil {
		t.Fatal(err)
	}
	host := daemon(t)
	folder(t, a)
	lines := strings.Split(string(a.Comment), "\n")
	ran := 0
	for i, line := range lines {
		command, ok := strings.CutPrefix(line, "! exec sampan ")
		if !ok {
			continue
		}
		ran++
		pattern := strings.TrimSuffix(strings.TrimPrefix(lines[i+1], "stderr '"), "'")
		_, stderr, code := sampan(t, host, strings.Fields(command)...)
		if code != 1 || !regexp.MustCompile("(?m)"+pattern).MatchString(stderr) {
			t.Errorf("%s: code %d\n%swant %s", command, code, stderr, pattern)
		}
		t.Logf("%s\n%s", command, stderr)
	}
	if ran < 10 {
		t.Errorf("only %d commands ran", ran)
	}
}

func TestPlan(t *testing.T) {
	host := daemon(t)
	folder(t, txtar.Parse([]byte(`
-- env.star --
env("shop")
front = network("front", options = {"mtu": 1400})
web = container("web", image = "nginx", networks = [front], memory = "64m")
-- empty.star --
env("none")
-- asks.star --
port = arg("port", default = "80", doc = "where the page is")
count = arg("count", default = 3)
-- wants.star --
version = arg("version", doc = "what to build")
-- build.star --
def one(ctx):
    """The one."""
    return scratch()
`)))
	stdout, stderr, code := sampan(t, host, "plan")
	if code != 2 || !strings.Contains(stdout, "+ container.web: create  (env.star:3:7)") || !strings.Contains(stdout, `memory = "64m"`) {
		t.Errorf("code %d\n%s%s", code, stdout, stderr)
	}
	if stdout, _, code := sampan(t, host, "plan", "empty.star"); code != 0 || !strings.Contains(stdout, "no changes") {
		t.Errorf("code %d\n%s", code, stdout)
	}
	stdout, _, code = sampan(t, host, "plan", "--json")
	var document struct {
		Changes []struct{ Action, Address string }
	}
	if err := json.Unmarshal([]byte(stdout), &document); err != nil || code != 2 || len(document.Changes) != 2 || document.Changes[1].Address != "container.web" {
		t.Errorf("code %d, %v\n%s", code, err, stdout)
	}
	if _, stderr, _ := sampan(t, host, "plan", "--arg", "prot=1"); !strings.Contains(stderr, `--arg "prot": expected`) {
		t.Errorf("an argument that is not declared: %s", stderr)
	}
	if _, stderr, code := sampan(t, host, "apply", "--parallel", "0"); code != 1 || stderr != "sampan: --parallel \"0\": expected at least 1\n" {
		t.Errorf("code %d\n%s", code, stderr)
	}
	if stdout, _, code := sampan(t, host, "graph"); code != 0 || !strings.Contains(stdout, "needs network.front") {
		t.Errorf("code %d\n%s", code, stdout)
	}
	if stdout, _, code := sampan(t, host, "graph", "asks.star"); code != 0 || !strings.Contains(stdout, "  arg port = \"80\"  where the page is\n  arg count = 3\n") {
		t.Errorf("code %d\n%s", code, stdout)
	}
	for _, verb := range [][]string{{"graph", "wants.star"}, {"build", "--file", "wants.star"}} {
		_, stderr, code := sampan(t, host, verb...)
		if code != 1 || !strings.Contains(stderr, "no value is given: what to build\n") || !strings.Contains(stderr, "give it by --arg version=VALUE") {
			t.Errorf("%v: code %d\n%s", verb, code, stderr)
		}
	}
	if stdout, _, code := sampan(t, host, "build", "--list"); code != 0 || stdout != "one                  The one.\n" {
		t.Errorf("code %d\n%q", code, stdout)
	}
}

// TestReference prints every builtin with its arguments.
func TestReference(t *testing.T) {
	stdout, stderr, code := sampan(t, "tcp://127.0.0.1:1", "script", "--reference")
	for _, want := range []string{"### container\n", "### filesystem.copy\n", "### ctx.wait_http\n", "| `memory` | a size such as 512m or 2g | `no limit` |", "### volume.at\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in the reference; code %d\n%s", want, code, stderr)
		}
	}
}

// TestReferenceIsWritten keeps docs/starlark.md what the program says. To write it anew:
// sampan script --reference >docs/starlark.md
func TestReferenceIsWritten(t *testing.T) {
	written, err := os.ReadFile("../../../docs/starlark.md")
	if err != nil {
		t.Fatal(err)
	}
	if stdout, _, _ := sampan(t, "tcp://127.0.0.1:1", "script", "--reference"); stdout != string(written) {
		t.Error("docs/starlark.md is not what `sampan script --reference` prints: write it anew")
	}
}
