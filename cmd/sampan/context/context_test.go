package context

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// bench is a client with a home of its own.
type bench struct {
	t    *testing.T
	home string
	env  map[string]string
}

func newBench(t *testing.T) *bench {
	home := t.TempDir()
	return &bench{t: t, home: home, env: map[string]string{"HOME": home}}
}

// run runs a command line, as a program of its own, and returns what it printed.
func (b *bench) run(args ...string) (out, errout string, err error) {
	b.t.Helper()
	var o, e bytes.Buffer
	c := cli.New(strings.NewReader(""), &o, &e)
	c.Env = func(name string) string { return b.env[name] }
	cmd := Group(c)
	cli.Prepare(cmd, c.Out, c.Err)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(b.t.Context())
	return o.String(), e.String(), err
}

// must is run, of what succeeds.
func (b *bench) must(args ...string) (out, errout string) {
	b.t.Helper()
	out, errout, err := b.run(args...)
	if err != nil {
		b.t.Fatalf("%v: %v", args, err)
	}
	return out, errout
}

// The words are docker's, which scripts read.
func TestWords(t *testing.T) {
	b := newBench(t)
	pem := filepath.Join(b.home, "x.pem")
	if err := os.WriteFile(pem, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(b.home, "aa.tar")
	for _, tt := range []struct{ line, out, errout string }{
		{"create aa --docker host=tcp://h:1,ca=" + pem + ",skip-tls-verify=true --description d", "aa\n", "Successfully created context \"aa\"\n"},
		{"create bb", "bb\n", "Successfully created context \"bb\"\n"},
		{"use aa", "aa\n", "Current context is now \"aa\"\n"},
		{"show", "aa\n", ""},
		{"ls -q", "aa\nbb\ndefault\n", ""},
		{"ls --format {{.Name}}={{.DockerEndpoint}}={{.Current}}", "aa=tcp://h:1=true\nbb=unix:///run/sampan.sock=false\ndefault=unix:///run/sampan.sock=false\n", ""},
		{"update aa --description e", "aa\n", "Successfully updated context \"aa\"\n"},
		{"inspect aa -f {{.Metadata.Description}}.{{.Endpoints.docker.SkipTLSVerify}}.{{.TLSMaterial}}", "e.true.map[docker:[ca.pem]]\n", ""},
		{"export aa " + archive, "", "Written file \"" + archive + "\"\n"},
		{"import cc " + archive, "cc\n", "Successfully imported context \"cc\"\n"},
		{"rm -f aa cc none", "aa\ncc\nnone\n", ""},
		{"show", "default\n", ""},
	} {
		if out, errout := b.must(strings.Fields(tt.line)...); out != tt.out || errout != tt.errout {
			t.Errorf("%s: %q %q", tt.line, out, errout)
		}
	}
}

func TestRefusals(t *testing.T) {
	b := newBench(t)
	b.must("create", "aa", "--docker", "host=tcp://h:1")
	b.must("use", "aa")
	for _, tt := range []struct{ line, want string }{
		{"create aa", `context "aa" already exists`},
		{"create default", `"default" is a reserved context name`},
		{"create a/b", "names are validated against regexp"},
		{"create x1 --docker foo=bar", "unable to create docker endpoint config: unrecognized config key: foo"},
		{"create x1 --docker host=tcp://h,skip-tls-verify=maybe", `skip-tls-verify: parsing "maybe": invalid syntax`},
		{"create x1 --docker host=tcp://h,ca=/none", "open /none: no such file or directory"},
		{"create x1 --docker host=npipe:////./pipe/x", "protocol not available"},
		{"create x1 --docker host=ftp://h", "expected unix:///PATH"},
		{"create x1 --from aa --docker host=tcp://h", "cannot use --docker flag when --from is set"},
		{"create x1 --from none", `context "none": context not found`},
		{"use none", `context "none": context not found`},
		{"update none", `context "none": context not found`},
		{"rm aa", `context "aa" is in use, set -f flag to force remove`},
		{"rm none", `context "none" does not exist`},
		{"rm default", `context "default" cannot be removed`},
		{"inspect none", `context "none": context not found`},
		{"import x1 /none", "no such file or directory"},
	} {
		if _, _, err := b.run(strings.Fields(tt.line)...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.line, err)
		}
	}
}

// An environment that overrides the choice is told, and a current context that is lost is shown as such.
func TestOverridden(t *testing.T) {
	b := newBench(t)
	b.must("create", "aa", "--docker", "host=tcp://h:1")
	b.env["DOCKER_HOST"] = "tcp://other:1"
	if _, errout := b.must("use", "aa"); !strings.Contains(errout, `Warning: DOCKER_HOST environment variable overrides the active context. To use "aa", either set the global --context flag, or unset`) {
		t.Error(errout)
	}
	if out, errout := b.must("ls"); !strings.Contains(out, "default *") || !strings.Contains(errout, "Warning: DOCKER_HOST") {
		t.Error(out, errout)
	}
	b.env["DOCKER_HOST"], b.env["DOCKER_CONTEXT"] = "", "lost"
	if out, _ := b.must("ls"); !strings.Contains(out, "lost *") || !strings.Contains(out, `context "lost": context not found`) {
		t.Error(out)
	}
}

// A context takes nothing from docker's configuration but what is not of the engine: its logins stay in use.
func TestUseKeepsLogins(t *testing.T) {
	b := newBench(t)
	docker := filepath.Join(b.home, ".docker")
	if err := os.MkdirAll(docker, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(docker, "config.json"), []byte(`{"auths":{"r.example":{"auth":"dTpw"}},"currentContext":"theirs"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := b.must("show"); out != "default\n" {
		t.Errorf("docker's current context is ours: %s", out)
	}
	b.must("create", "aa", "--docker", "host=tcp://h:1")
	b.must("use", "aa")
	c := cli.New(strings.NewReader(""), io.Discard, io.Discard)
	c.Env = func(name string) string { return b.env[name] }
	if login, err := c.LoginOf("r.example"); err != nil || login == nil || login.Username != "u" {
		t.Errorf("%+v %v", login, err)
	}
	if data, err := os.ReadFile(filepath.Join(b.home, ".sampan", "config.json")); err != nil || strings.Contains(string(data), "auth") {
		t.Errorf("%s %v", data, err)
	}
}
