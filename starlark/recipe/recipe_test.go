package recipe_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/recipe"
	"github.com/sampan-project/sampan/starlark/script"
)

func load(t *testing.T, dir, text string, args map[string]string) (*recipe.Script, error) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "build.star"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s := script.New(script.Options{Dir: dir, Args: args})
	file, err := s.Entry("build.star")
	if err != nil {
		t.Fatal(err)
	}
	return recipe.Load(t.Context(), s, file)
}

func build(t *testing.T, dir, text, target string) (*recipe.Build, error) {
	t.Helper()
	s, err := load(t, dir, text, nil)
	if err != nil {
		return nil, err
	}
	return s.Build(t.Context(), target)
}

func ptr[T any](v T) *T { return &v }

const app = `
def app(ctx):
    src = ctx.local("src", ignore = ["*.md"])
    base = image("busybox").run("make", mounts = [src.at("/src"), ctx.cache("/var/cache")], network = "none")
    return base.copy(src.path("a.txt"), "/app/", owner = "33:33", mode = "644").copy(image("busybox").path("/bin/sh"), "/sh").config(
        entrypoint = ["cat"], cmd = "ls", workdir = "/app", env = {"A": "1"}, expose = [80, "53/udp"], health = probe.shell("true", retries = 2))
`

func TestGraph(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"src/a.txt": "a", "src/README.md": "no", "src/sub/b": "b"})
	b, err := build(t, dir, app, "")
	if err != nil {
		t.Fatal(err)
	}
	want := wire.BuildGraph{Target: 5, Nodes: []wire.BuildNode{
		{Op: "image", Image: &wire.BuildImage{Ref: "busybox:latest"}, Position: "build.star:4:12"},
		{Op: "local", Local: &wire.BuildLocal{Name: "src"}, Position: "build.star:3:15"},
		{Op: "run", Position: "build.star:4:29", Run: &wire.BuildRun{Base: 0, Args: []string{"/bin/sh", "-c", "make"}, Network: "none", Mounts: []wire.BuildMount{
			{Input: ptr(1), Path: "/", Target: "/src", ReadOnly: true}, {Cache: "var-cache", Target: "/var/cache"}}}},
		{Op: "copy", Position: "build.star:5:17", Copy: &wire.BuildCopy{Base: 2, From: 1, Source: "/a.txt", Dest: "/app/", Owner: "33:33", Mode: "644"}},
		{Op: "copy", Position: "build.star:5:81", Copy: &wire.BuildCopy{Base: 3, From: 0, Source: "/bin/sh", Dest: "/sh"}},
		{Op: "config", Position: "build.star:5:127", Config: &wire.BuildConfig{Base: 4, Entrypoint: &[]string{"cat"}, Cmd: &[]string{"/bin/sh", "-c", "ls"}, WorkingDir: ptr("/app"),
			Env: map[string]string{"A": "1"}, Expose: []string{"80/tcp", "53/udp"}, Health: &wire.Healthcheck{Test: []string{"CMD-SHELL", "true"}, Retries: 2}}},
	}}
	if diff := cmp.Diff(want, b.Graph); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"busybox:latest"}, b.Bases); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"local/src/", "local/src/a.txt=a", "local/src/sub/", "local/src/sub/b=b"}, sent(t, b)); diff != "" {
		t.Error(diff)
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// sent lists what goes to the daemon.
func sent(t *testing.T, b *recipe.Build) []string {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := b.WriteLocals(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(&buf); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		name := h.Name
		switch h.Typeflag {
		case tar.TypeReg:
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			name += "=" + string(data)
		case tar.TypeSymlink:
			name += "->" + h.Linkname
		}
		names = append(names, name)
		if !h.ModTime.Equal(time.Unix(0, 0)) || h.Uid != 0 {
			t.Errorf("%s: time %v, owner %d", h.Name, h.ModTime, h.Uid)
		}
	}
}

// The digest is of what is built: not of places, times or comments, but of every byte and mode.
func TestDigest(t *testing.T) {
	digest := func(change func(dir string), text string) string {
		dir := t.TempDir()
		write(t, dir, map[string]string{"src/a.txt": "a", "src/README.md": "no"})
		change(dir)
		b, err := build(t, dir, text, "app")
		if err != nil {
			t.Fatal(err)
		}
		return b.Digest
	}
	nothing := func(string) {}
	first := digest(nothing, app)
	same := map[string]string{
		"again":            digest(nothing, app),
		"a comment":        digest(nothing, "# hello\n\n"+app),
		"a time":           digest(func(dir string) { _ = os.Chtimes(filepath.Join(dir, "src/a.txt"), time.Unix(1, 0), time.Unix(1, 0)) }, app),
		"an ignored file":  digest(func(dir string) { write(t, dir, map[string]string{"src/README.md": "other"}) }, app),
		"another function": digest(nothing, app+"def other(ctx):\n    return scratch()\n"),
	}
	for what, d := range same {
		if d != first {
			t.Errorf("%s changes the digest", what)
		}
	}
	other := map[string]string{
		"a byte":    digest(func(dir string) { write(t, dir, map[string]string{"src/a.txt": "b"}) }, app),
		"a mode":    digest(func(dir string) { _ = os.Chmod(filepath.Join(dir, "src/a.txt"), 0o755) }, app),
		"a file":    digest(func(dir string) { write(t, dir, map[string]string{"src/new": ""}) }, app),
		"a command": digest(nothing, strings.Replace(app, `"make"`, `"make all"`, 1)),
	}
	for what, d := range other {
		if d == first {
			t.Errorf("%s does not change the digest", what)
		}
	}
}

func TestLinks(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write(t, dir, map[string]string{"src/a": "a"})
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "src/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	b, err := build(t, dir, "def main(ctx):\n    return scratch().copy(ctx.local(\"src\"), \"/\")", "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"local/src/", "local/src/a=a", "local/src/link->/etc/passwd"}, sent(t, b)); diff != "" {
		t.Error(diff)
	}
	_, err = build(t, dir, "def main(ctx):\n    return scratch().copy(ctx.local(\"out\"), \"/\")", "")
	if err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("a link out of the workspace: %v", err)
	}
}

func TestOneFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"conf/a.conf": "a", "conf/b.conf": "b"})
	b, err := build(t, dir, "def main(ctx):\n    return scratch().copy([ctx.local(\"conf/a.conf\"), ctx.local(\"conf/b.conf\")], \"/etc/\")", "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"local/a.conf/", "local/a.conf/a.conf=a", "local/b.conf/", "local/b.conf/b.conf=b"}, sent(t, b)); diff != "" {
		t.Error(diff)
	}
	if c := b.Graph.Nodes[2].Copy; c.Source != "/a.conf" {
		t.Errorf("source = %q", c.Source)
	}
}

func TestMistakes(t *testing.T) {
	tests := []struct{ name, script, target, want string }{
		{"no such target", "def a(ctx):\n    return scratch()\ndef b(ctx):\n    return scratch()", "aa", `no target "aa" in build.star: expected one of a, b`},
		{"no target named", "def a(ctx):\n    return scratch()\ndef b(ctx):\n    return scratch()", "", `no target is named and there is no main: expected one of a, b`},
		{"private", "def _a(ctx):\n    return scratch()", "_a", `no target "_a"`},
		{"method", "def main(ctx):\n    return scratch().copyy(1)", "", `build.star:2:22: filesystem has no .copyy field or method (did you mean "copy"?)`},
		{"nothing returned", "def main(ctx):\n    scratch()", "", `build.star:1:1: target "main": expected the function to return an image such as scratch() or image("x").run(...), got None`},
		{"files returned", "def main(ctx):\n    return image(\"a\").path(\"/bin\")", "", `got files`},
		{"string source", "def main(ctx):\n    return scratch().copy(\"src\", \"/\")", "", `build.star:2:27: filesystem.copy: source: expected files`},
		{"relative dest", "def main(ctx):\n    return scratch().copy(image(\"a\"), \"app\")", "", `build.star:2:39: filesystem.copy: dest: expected an absolute path such as "/app/", got string "app"`},
		{"missing local", "def main(ctx):\n    return scratch().copy(ctx.local(\"nowhere\"), \"/\")", "", `build.star:2:37: ctx.local: path: nowhere: no such file or directory`},
		{"outside", "def main(ctx):\n    return scratch().copy(ctx.local(\"../..\"), \"/\")", "", `is outside of the workspace`},
		{"mode", "def main(ctx):\n    return scratch().copy(image(\"a\"), \"/\", mode = \"u+x\")", "", `mode: expected permissions in octal, such as "755"`},
		{"network", "def main(ctx):\n    return image(\"a\").run(\"x\", network = \"nome\")", "", `(did you mean "none"?)`},
		{"mount", "def main(ctx):\n    return image(\"a\").run(\"x\", mounts = [image(\"b\")])", "", `mounts[0]: expected build mount, got filesystem`},
		{"reference", "def main(ctx):\n    return image(\"A b\")", "", `build.star:2:18: image "A b": reference: expected an image such as`},
		{"run on files", "def main(ctx):\n    return ctx.local(\".\").run(\"x\")", "", `it is not a whole filesystem`},
		{"too many steps", "def main(ctx):\n    x = scratch()\n    for i in range(20000):\n        x = x.config(env = {\"A\": str(i)})\n    return x", "", `expected at most 10000 steps`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := build(t, t.TempDir(), test.script, test.target)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v\nwant    %s", err, test.want)
			}
		})
	}
}

func TestArguments(t *testing.T) {
	s, err := load(t, t.TempDir(), "v = arg(\"v\", default = 3, choices = [\"3\", \"4\"])\ndef main(ctx):\n    return image(\"a:%d\" % v)", map[string]string{"v": "4"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Build(t.Context(), "")
	if err != nil || b.Graph.Nodes[0].Image.Ref != "a:4" {
		t.Errorf("%v, %v", b, err)
	}
	if _, err := load(t, t.TempDir(), "v = arg(\"v\", default = 3)", map[string]string{"v": "x"}); err == nil || !strings.Contains(err.Error(), `build.star:1:5: arg "v": expected a whole number, got --arg v=x`) {
		t.Errorf("error = %v", err)
	}
}

func TestDocs(t *testing.T) {
	for _, f := range append(recipe.Funcs(), recipe.ContextFuncs()...) {
		if f.Doc == "" || f.Example == "" {
			t.Errorf("%s has no doc or no example", f.Name)
		}
	}
}
