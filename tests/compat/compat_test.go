package compat

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sampan-project/sampan/tests/scenario"
)

// limit is how long a command may take before it is ended; it bounds a hang and asserts no speed.
const limit = 30 * time.Second

// words are programs beside docker that scripts may use.
var words = map[string]string{
	"api": `#!/bin/sh
method=$1 path=$2
shift 2
[ $# -gt 0 ] && set -- --data-binary "$1"
exec curl -s --max-time 20 -X "$method" --unix-socket "$SOCKET" -H 'Content-Type: application/json' "$@" -w '\nHTTP %{http_code} %{content_type}\n' "http://docker/v$DOCKER_API_VERSION$path"
`,
	"eventually": `#!/bin/sh
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39; do
  "$@" >eventually.out 2>&1 && { cat eventually.out; exit 0; }
  sleep .25
done
exec "$@"
`,
	"registry": `#!/bin/sh
root=$(dirname "$SOCKET")
net=/proc/$(cat "$root/pid" 2>/dev/null || cat "$root/d.pid")/ns/net
echo '{version: 0.1, storage: {inmemory: {}}, http: {addr: "127.0.0.1:5000"}}' >registry.yml
nsenter --net=$net docker-registry serve registry.yml >registry.log 2>&1 &
echo $! >registry.pid
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  nsenter --net=$net curl -sf http://127.0.0.1:5000/v2/ >/dev/null && exit 0
  sleep .25
done
exit 1
`,
}

// side is an engine and where its commands are run.
type side struct {
	scenario.Engine
	work string
}

// outcome is what came of a command.
type outcome struct {
	Status         int
	Stdout, Stderr []string
}

// TestPage holds docs/compatibility.md to what the scripts say.
func TestPage(t *testing.T) {
	scripts, everywhere, err := load("testdata")
	if err != nil {
		t.Fatal(err)
	}
	want := page(scripts, everywhere)
	const file = "../../docs/compatibility.md"
	if os.Getenv("SAMPAN_COMPAT") == "write" {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/compatibility.md is not what the scripts say (-want +got); run make compat:\n%s", diff)
	}
}

// TestSame runs the scripts against both engines: the short ones, or with $SAMPAN_COMPAT all of them.
func TestSame(t *testing.T) {
	scripts, everywhere, err := load("testdata")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := scenario.Pair(t)
	for _, s := range scripts {
		if os.Getenv("SAMPAN_COMPAT") == "" && !s.short {
			continue
		}
		t.Run(s.name, func(t *testing.T) { s.run(t, ours, theirs, everywhere) })
	}
}

func (s *script) run(t *testing.T, ours, theirs scenario.Engine, everywhere *script) {
	us, them := newSide(t, ours), newSide(t, theirs)
	defer func() { us.clean(); them.clean() }()
	rules := slices.Concat(everywhere.norms, s.norms)
	ignores := slices.Concat(everywhere.ignores, s.ignores)
	for _, step := range s.steps {
		var got, want outcome
		var both sync.WaitGroup
		both.Go(func() { got = us.run(t.Context(), step, rules) })
		both.Go(func() { want = them.run(t.Context(), step, rules) })
		both.Wait()
		drop(ignores, &got, &want)
		switch diff := difference(want, got); {
		case diff != "" && step.differs == "":
			t.Errorf("%s.txt:%d: %s\n%s", s.name, step.line, step.command, diff)
		case diff == "" && step.differs != "":
			t.Errorf("%s.txt:%d: %s\nis the same with both; remove: differs %s", s.name, step.line, step.command, step.differs)
		case os.Getenv("SAMPAN_COMPAT") == "show" && diff != "":
			t.Logf("%s.txt:%d: %s\n%s", s.name, step.line, step.command, diff)
		case os.Getenv("SAMPAN_COMPAT") == "show":
			t.Logf("%s.txt:%d: %s\n%s", s.name, step.line, step.command, difference(outcome{}, got))
		}
	}
	for _, i := range s.ignores {
		if !i.used && !t.Failed() {
			t.Errorf("%s.txt: ignore %s: there is no such difference", s.name, i.pattern)
		}
	}
}

// difference has a line for each that only one side has, that of dockerd with a minus.
func difference(want, got outcome) string {
	if cmp.Equal(want, got) {
		return ""
	}
	var b strings.Builder
	compare := func(name string, want, got []string) {
		for _, line := range want {
			if !slices.Contains(got, line) {
				fmt.Fprintf(&b, "-%s %s\n", name, line)
			}
		}
		for _, line := range got {
			if !slices.Contains(want, line) {
				fmt.Fprintf(&b, "+%s %s\n", name, line)
			}
		}
	}
	compare("status", []string{fmt.Sprint(want.Status)}, []string{fmt.Sprint(got.Status)})
	compare("stdout", want.Stdout, got.Stdout)
	compare("stderr", want.Stderr, got.Stderr)
	if b.Len() == 0 {
		return "the order of lines, or how often they come:\n" + cmp.Diff(want, got)
	}
	return b.String()
}

func newSide(t *testing.T, engine scenario.Engine) side {
	t.Helper()
	work := filepath.Join(engine.Root, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(work) })
	bin := filepath.Join(engine.Root, "words")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range words {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return side{Engine: engine, work: work}
}

// shell is a command of the side's client. Both are asked for the version of the API that both have.
func (s side) shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = s.work
	cmd.Env = []string{
		"PATH=" + filepath.Join(s.Root, "words") + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + s.work, "TERM=xterm", "LC_ALL=C.UTF-8", "TZ=UTC",
		"DOCKER_HOST=unix://" + s.Socket, "DOCKER_API_VERSION=1.41", "SOCKET=" + s.Socket, "DOCKER_CLI_HINTS=false",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func (s side) run(ctx context.Context, step *step, rules []norm) outcome {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := s.shell(ctx, step.command)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	o := outcome{Stdout: normalise(stdout.String(), s.Root, rules), Stderr: normalise(stderr.String(), s.Root, rules)}
	if cmd.ProcessState != nil {
		o.Status = cmd.ProcessState.ExitCode()
	}
	if ctx.Err() != nil {
		o.Stderr = append(o.Stderr, fmt.Sprintf("did not end: %v", err))
	}
	if step.unordered {
		slices.Sort(o.Stdout)
		slices.Sort(o.Stderr)
	}
	return o
}

// clean removes what a script left, so that the next finds the image and nothing else.
func (s side) clean() {
	line := `docker rm -f -v $(docker ps -aq); docker network prune -f; docker volume rm -f $(docker volume ls -q); ` +
		`for i in $(docker images --format '{{.Repository}}:{{.Tag}}'); do [ $i = busybox:latest ] || docker rmi -f $i; done; docker image prune -f`
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_ = s.shell(ctx, line).Run() // what is left is told as a leak
}

// drop removes lines that are not compared, and notes which rules were of use.
func drop(ignores []*ignore, got, want *outcome) {
	for _, pair := range [][2]*[]string{{&got.Stdout, &want.Stdout}, {&got.Stderr, &want.Stderr}} {
		a, b := *pair[0], *pair[1]
		for _, i := range ignores {
			for _, line := range a {
				i.used = i.used || i.pattern.MatchString(line) && !slices.Contains(b, line)
			}
			for _, line := range b {
				i.used = i.used || i.pattern.MatchString(line) && !slices.Contains(a, line)
			}
		}
		ignored := func(line string) bool {
			return slices.ContainsFunc(ignores, func(i *ignore) bool { return i.pattern.MatchString(line) })
		}
		*pair[0], *pair[1] = slices.DeleteFunc(slices.Clone(a), ignored), slices.DeleteFunc(slices.Clone(b), ignored)
	}
}

// TestNormalise is about what must not be taken for an id or a time.
func TestNormalise(t *testing.T) {
	for _, c := range []struct {
		name, output string
		want         []string
	}{
		{"an id", strings.Repeat("0a", 32) + " 0123456789ab", []string{"<ID> <id>"}},
		{"a number and a word are no ids", "123456789012 facedeadbeef", []string{"123456789012 facedeadbeef"}},
		{"a time", "2026-01-02T03:04:05.6Z x", []string{"<TIME> x"}},
		{"columns", "NAME      X", []string{"NAME  X"}},
		{"JSON by path", `{"b":[1,{"c":null}],"a":{}}`, []string{".a = {}", ".b[0] = 1", ".b[1].c = null"}},
		{"JSON of a request", "[]\n\nHTTP 200 application/json\n", []string{" = []", "HTTP 200 application/json"}},
		{"the root", "at /r/x", []string{"at <ROOT>/x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, normalise(c.output, "/r", nil)); diff != "" {
				t.Errorf("normalise(%q) (-want +got):\n%s", c.output, diff)
			}
		})
	}
}
