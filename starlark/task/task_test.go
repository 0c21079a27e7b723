package task_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/enginetest"
	"github.com/sampan-project/sampan/starlark/env"
	"github.com/sampan-project/sampan/starlark/script"
	"github.com/sampan-project/sampan/starlark/task"
)

// engine runs commands of its own: "echo WORDS", "cat" (of its input), "fail STATUS", "hang".
type engine struct {
	enginetest.Engine
	mu    sync.Mutex
	runs  map[string]*run // by container or exec ID
	files map[string]string
}

type run struct {
	command []string
	conn    net.Conn
	done    chan struct{}
	code    int
}

func newEngine() *engine {
	return &engine{Engine: enginetest.Engine{Remote: []string{"busybox:latest"}}, runs: map[string]*run{}, files: map[string]string{}}
}

func (e *engine) attach(id string, command []string) *client.Hijacked {
	ours, theirs := net.Pipe()
	e.mu.Lock()
	e.runs[id] = &run{command, theirs, make(chan struct{}), 0}
	e.mu.Unlock()
	return &client.Hijacked{Conn: ours, Reader: bufio.NewReader(ours)}
}

func frame(stream byte, text string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{stream, 0, 0, 0}, uint32(len(text)))
	return append(b, text...)
}

// work does what a command says.
func (r *run) work() {
	defer close(r.done)
	defer r.conn.Close()
	words := r.command[1:]
	switch r.command[0] {
	case "echo":
		_, _ = r.conn.Write(frame(1, strings.Join(words, " ")+"\n"))
	case "cat":
		b := make([]byte, 100)
		n, _ := r.conn.Read(b)
		_, _ = r.conn.Write(frame(1, string(b[:n])))
	case "fail":
		_, _ = r.conn.Write(frame(2, "went wrong\n"))
		_, _ = fmt.Sscan(words[0], &r.code)
	case "flood":
		for range 20 {
			_, _ = r.conn.Write(frame(1, strings.Repeat("x", 1<<20)))
		}
	case "hang":
		_, _ = io.Copy(io.Discard, r.conn)
	}
}

func (e *engine) ContainerAttach(ctx context.Context, id string, _ client.AttachOptions) (*client.Hijacked, error) {
	c, err := e.ContainerInspect(ctx, id, false)
	if err != nil {
		return nil, err
	}
	return e.attach(id, c.Config.Cmd), nil
}

func (e *engine) ContainerStart(ctx context.Context, id string) error {
	if err := e.Engine.ContainerStart(ctx, id); err != nil {
		return err
	}
	if r := e.run(id); r != nil {
		go r.work()
	}
	return nil
}

func (e *engine) run(id string) *run {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runs[id]
}

func (e *engine) ContainerWait(_ context.Context, id, _ string) (func() (wire.WaitResponse, error), error) {
	return func() (wire.WaitResponse, error) {
		r := e.run(id)
		<-r.done
		return wire.WaitResponse{StatusCode: int64(r.code)}, nil
	}, nil
}

func (e *engine) ExecCreate(_ context.Context, container string, config wire.ExecConfig) (string, error) {
	id := fmt.Sprintf("exec%d", len(e.runs))
	e.attach(id, config.Cmd)
	return id, nil
}

func (e *engine) ExecAttach(_ context.Context, id string, _ wire.ExecStart) (*client.Hijacked, error) {
	h := e.attach(id, e.run(id).command)
	go e.run(id).work()
	return h, nil
}

func (e *engine) ExecInspect(_ context.Context, id string) (wire.ExecInspect, error) {
	r := e.run(id)
	<-r.done
	return wire.ExecInspect{ExitCode: &r.code}, nil
}

func (e *engine) CopyTo(_ context.Context, _, dir string, r io.Reader, _ client.CopyOptions) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return err
		}
		e.files[dir+"|"+h.Name] = string(data)
	}
}

// CopyFrom answers a file and, in the folder "evil", what a hostile container may send.
func (e *engine) CopyFrom(_ context.Context, _, path string) (io.ReadCloser, wire.PathStat, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	base := filepath.Base(path)
	var err error
	add := func(h tar.Header, text string) {
		h.Size, h.Mode = int64(len(text)), 0o644
		err = errors.Join(err, w.WriteHeader(&h))
		_, werr := io.WriteString(w, text)
		err = errors.Join(err, werr)
	}
	switch base {
	case "evil":
		add(tar.Header{Typeflag: tar.TypeDir, Name: "evil/"}, "")
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "evil/link", Linkname: "/tmp"}, "")
		add(tar.Header{Typeflag: tar.TypeReg, Name: "evil/link/owned"}, "x")
	case "up":
		add(tar.Header{Typeflag: tar.TypeReg, Name: "up/../../../owned"}, "x")
	default:
		add(tar.Header{Typeflag: tar.TypeReg, Name: base}, "from the container")
	}
	return io.NopCloser(&b), wire.PathStat{Name: base}, errors.Join(err, w.Close())
}

type result struct {
	out, shown, dir string
	err             error
	engine          *engine
}

func perform(t *testing.T, body string, args ...string) result {
	t.Helper()
	r := result{dir: t.TempDir(), engine: newEngine()}
	text := "def main(ctx):\n    " + strings.ReplaceAll(strings.TrimSpace(body), "\n", "\n    ")
	for name, content := range map[string]string{"run.star": text, "file.txt": "file", "dir/a": "a", "dir/b/c": "c"} {
		path := filepath.Join(r.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out, shown strings.Builder
	s := script.New(script.Options{Dir: r.dir, Print: func(_ diag.Span, m string) { fmt.Fprintln(&out, m) }})
	file, err := s.Entry("run.star")
	if err != nil {
		t.Fatal(err)
	}
	_, globals, err := env.Evaluate(t.Context(), s, file, env.Options{})
	if err != nil {
		t.Fatal(err)
	}
	list := make([]starlark.Value, len(args))
	for i, a := range args {
		list[i] = starlark.String(a)
	}
	r.err = task.Run(t.Context(), r.engine, s, globals["main"], task.Options{Args: starlark.NewList(list), Stdout: &shown, Stderr: &shown, Unique: func() string { return "1" }})
	r.out, r.shown = out.String(), shown.String()
	if left := r.engine.Left(); !strings.HasPrefix(left, "0 containers") || !strings.Contains(left, "0 networks") {
		t.Errorf("left: %s", left)
	}
	return r
}

func TestScripts(t *testing.T) {
	tests := []struct{ name, script, want, err string }{
		{"run", `print(ctx.run("busybox", ["echo", "hello", ctx.args[0]]).stdout.strip())`, "hello world\n", ""},
		{"stdin", `print(ctx.run("busybox", ["cat"], stdin = "given").stdout)`, "given\n", ""},
		{"status", `print(ctx.run("busybox", ["fail", "3"], check = False).exit_code)`, "3\n", ""},
		{"stderr", `print(ctx.run("busybox", ["fail", "3"], check = False).stderr)`, "went wrong\n\n", ""},
		{"checked", `ctx.run("busybox", ["fail", "3"])`, "", `run.star:2:24: ctx.run: command: fail 3 ended with status 3: went wrong`},
		{"fail", `ctx.fail("on purpose")`, "", `run.star:2:9: failed: on purpose`},
		{"start and exec", "box = ctx.start(\"busybox\", [\"hang\"])\nprint(box.exec([\"echo\", \"in\"]).stdout.strip(), box.address)\nctx.exec(box, [\"fail\", \"2\"])", "in 172.17.0.2\n",
			`run.star:4:19: ctx.exec: command: fail 2 ended with status 2`},
		{"network", "net = ctx.network()\nbox = ctx.start(\"busybox\", [\"hang\"], name = \"db\", network = net)\nprint(net, box.address)", "script-1 10.0.0.3\n", ""},
		{"timeout", `ctx.run("busybox", ["hang"], timeout = "20ms")`, "", `timeout: the command takes longer than 20ms`},
		{"flood", `ctx.run("busybox", ["flood"])`, "", `the output has more than 16 MiB`},
		{"no image", `ctx.run("nowhere", ["x"])`, "", `run.star:2:13: ctx.run: image: manifest for nowhere:latest not found`},
		{"bad image", `ctx.run("No Where", ["x"])`, "", `image: expected an image such as`},
		{"argument", `ctx.run("busybox", ["x"], comand = 1)`, "", `unexpected argument "comand" (did you mean "command"?)`},
		{"method", `ctx.runn("busybox")`, "", `context has no .runn field or method (did you mean "run"?)`},
		{"args", `ctx.args[3]`, "", `run.star:2:13`},
		{"copy to", "box = ctx.start(\"busybox\", [\"hang\"])\nctx.copy(\"file.txt\", box.at(\"/tmp/\"))\nctx.copy(\"dir\", box.at(\"/srv/www\"))", "", ""},
		{"copy nothing", "box = ctx.start(\"busybox\", [\"hang\"])\nctx.copy(\"none\", box.at(\"/tmp/\"))", "", `run.star:3:14: ctx.copy: source: none: no such file or directory`},
		{"copy outside", "box = ctx.start(\"busybox\", [\"hang\"])\nctx.copy(\"../x\", box.at(\"/tmp/\"))", "", `is outside of the workspace`},
		{"copy evil", "box = ctx.start(\"busybox\", [\"hang\"])\nctx.copy(box.at(\"/evil\"), \"got\")", "", `escapes`},
		{"copy up", "box = ctx.start(\"busybox\", [\"hang\"])\nctx.copy(box.at(\"/up\"), \"got\")", "", `expected a path inside the copy`},
		{"copy a container", "box = ctx.start(\"busybox\", [\"hang\"])\nctx.copy(\"file.txt\", box)", "", `dest: expected a path of the workspace, or box.at("/path"), got container`},
		{"url", `ctx.wait_http("127.0.0.1")`, "", `expected a URL such as`},
		{"nobody", `ctx.wait_http("http://127.0.0.1:1/", timeout = "50ms")`, "", `http://127.0.0.1:1/ is not there after 50ms`},
		{"no probe", "box = ctx.start(\"busybox\", [\"hang\"])\nctx.wait(box, \"healthy\")", "", `it has no health probe`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := perform(t, test.script, "world")
			if r.out != test.want {
				t.Errorf("printed %q, want %q", r.out, test.want)
			}
			if test.err == "" && r.err != nil || test.err != "" && (r.err == nil || !strings.Contains(r.err.Error(), test.err)) {
				t.Errorf("error = %v\nwant    %s", r.err, test.err)
			}
		})
	}
}

func TestCopy(t *testing.T) {
	r := perform(t, `
box = ctx.start("busybox", ["hang"])
ctx.copy("file.txt", box.at("/tmp/renamed"))
ctx.copy("file.txt", box.at("/tmp/"))
ctx.copy("dir", box.at("/srv/www"))
ctx.copy(box.at("/var/x"), "got/")
ctx.copy(box.at("/var/x"), "new/y")
ctx.copy(box.at("/var/x"), box.at("/z"))`)
	if r.err != nil {
		t.Fatal(r.err)
	}
	want := map[string]string{"/tmp/|renamed": "file", "/tmp/|file.txt": "file", "/srv/|www/": "", "/srv/|www/a": "a", "/srv/|www/b/": "", "/srv/|www/b/c": "c", "/|z": "from the container"}
	if diff := cmp.Diff(want, r.engine.files); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"got/x", "new/y"} {
		if data, err := os.ReadFile(filepath.Join(r.dir, name)); err != nil || string(data) != "from the container" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
}

func TestShow(t *testing.T) {
	if r := perform(t, `ctx.run("busybox", ["echo", "shown"], show = True)`); r.shown != "shown\n" || r.out != "" {
		t.Errorf("shown %q, printed %q", r.shown, r.out)
	}
}

func TestWaitHTTP(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, "page")
	}))
	defer s.Close()
	if r := perform(t, fmt.Sprintf("page = ctx.wait_http(%q)\nprint(page.status, page.body)", s.URL)); r.err != nil || r.out != "200 page\n" {
		t.Errorf("printed %q, %v", r.out, r.err)
	}
	if r := perform(t, fmt.Sprintf("ctx.wait_http(%q, status = 404, timeout = \"50ms\")", s.URL)); r.err == nil || !fault.Is(r.err, fault.Deadline) || !strings.Contains(r.err.Error(), "it answered with status 200") {
		t.Errorf("error = %v", r.err)
	}
}

// An interrupted script leaves nothing either.
func TestInterrupt(t *testing.T) {
	dir, e := t.TempDir(), newEngine()
	if err := os.WriteFile(filepath.Join(dir, "run.star"), []byte("def main(ctx):\n    ctx.start(\"busybox\", [\"hang\"])\n    ctx.run(\"busybox\", [\"hang\"])"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := script.New(script.Options{Dir: dir})
	file, err := s.Entry("run.star")
	if err != nil {
		t.Fatal(err)
	}
	_, globals, err := env.Evaluate(t.Context(), s, file, env.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := task.Run(ctx, e, s, globals["main"], task.Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v", err)
	}
	if left := e.Left(); !strings.HasPrefix(left, "0 containers") {
		t.Errorf("left: %s", left)
	}
}

func TestArguments(t *testing.T) {
	dir := t.TempDir()
	text := "def _m(ctx):\n    print(ctx.args.version, ctx.args.n)\ntask(\"migrate\", _m, args = {\"version\": arg.string(), \"n\": arg.int(default = 1)})"
	if err := os.WriteFile(filepath.Join(dir, "env.star"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	s := script.New(script.Options{Dir: dir, Print: func(_ diag.Span, m string) { out.WriteString(m) }})
	file, err := s.Entry("env.star")
	if err != nil {
		t.Fatal(err)
	}
	g, _, err := env.Evaluate(t.Context(), s, file, env.Options{})
	if err != nil {
		t.Fatal(err)
	}
	values, err := task.Arguments(g.Tasks[0], []string{"version=12", "--n=3"})
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Run(t.Context(), newEngine(), s, g.Tasks[0].Run, task.Options{Args: values}); err != nil || out.String() != "12 3" {
		t.Errorf("printed %q, %v", out.String(), err)
	}
	for _, test := range []struct {
		words []string
		want  string
	}{
		{nil, `version=VALUE, which task migrate needs`},
		{[]string{"versoin=1"}, `(did you mean "version"?)`}, //nolint:misspell // meant
		{[]string{"version=1", "n=x"}, `n "x": expected a whole number`},
	} {
		if _, err := task.Arguments(g.Tasks[0], test.words); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: error = %v, want %s", test.words, err, test.want)
		}
	}
}

func TestDocs(t *testing.T) {
	for _, f := range append(task.Funcs(), task.BoxFuncs()...) {
		if f.Doc == "" {
			t.Errorf("%s has no doc", f.Name)
		}
	}
}
