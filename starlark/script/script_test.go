package script_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/script"
)

func run(t *testing.T, files map[string]string, o script.Options) (*script.Session, starlark.StringDict, error) {
	t.Helper()
	o.Dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(o.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := script.New(o)
	file, err := s.Entry("main.star")
	if err != nil {
		t.Fatal(err)
	}
	globals, err := s.Run(t.Context(), file, s.Universe(nil))
	return s, globals, s.Files.Explain(err)
}

// The guards must not change what correct programs mean.
func TestLanguageIsWhole(t *testing.T) {
	_, globals, err := run(t, map[string]string{"main.star": `
def f(a, b = 2, *c, **d):
    return [a * b] + list(c) + sorted(d.items())
x = [i * j for i in range(3) for j in range(2) if i != j and not i % 3 == 2]
y = {k: v * 2 for k, v in {"a": 1}.items()}
z = "%s-%d" % ("a", 3) if x and y else "no"
w = f(2, 3, 4, e = 5)
s = "a{}c".format("b").replace("c", "d")
t = ",".join(["1", "2"] * 2)
def h2():
    n = 2
    n *= 3
    n %= 4
    n <<= 1
    n = n << 1 >> 1
    d = {"a": [1, 2]}
    d["a"][0] *= 5
    n = n if d["a"] == [5, 2] else -1
    l = [1]
    l *= 2
    return n, l
n, l = h2()
u = "b" in "abc" or False
g = (lambda q: q * 2)(4)
v = 1 < 2
h = "x" * 3
o = set([1, 2]) | set([3])
m = [1, 2, 3][0:1 * 2]
`}, script.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"x": "[0, 0]", "y": `{"a": 2}`, "z": `"a-3"`, "w": `[6, 4, ("e", 5)]`, "s": `"abd"`, "t": `"1,2,1,2"`, "n": "4", "l": "[1, 1]",
		"u": "True", "g": "8", "v": "True", "h": `"xxx"`, "o": "set([1, 2, 3])", "m": "[1, 2]",
	}
	got := map[string]string{}
	for name := range want {
		got[name] = fmt.Sprint(globals[name])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoad(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  string // of x, or the error
	}{
		{"beside", map[string]string{"main.star": `load(":b.star", "b")` + "\nx = b", "b.star": "b = 1"}, "1"},
		{"from the root", map[string]string{"main.star": `load("//d/b.star", y = "b")` + "\nx = y", "d/b.star": `load(":c.star", "c")` + "\nb = c", "d/c.star": "c = 2"}, "2"},
		{"once", map[string]string{"main.star": "load(\":b.star\", \"l\")\nload(\":c.star\", \"m\")\nx = l == m", "b.star": "l = [1]", "c.star": "load(\":b.star\", \"l\")\nm = l"}, "True"},
		{"frozen", map[string]string{"main.star": "load(\":b.star\", \"l\")\nl.append(1)", "b.star": "l = []"}, "main.star:2:3: append: cannot append to frozen list"},
		{"cycle", map[string]string{"main.star": "load(\":b.star\", \"b\")", "b.star": "load(\":main.star\", \"x\")\nb = 1"}, "b.star:1:1: load cycle: main.star -> b.star -> main.star"},
		{"no such name", map[string]string{"main.star": "load(\":b.star\", \"bb\")", "b.star": "bbb = 1"}, "main.star:1:1: load: name bb not found in module :b.star"},
		{"missing", map[string]string{"main.star": "load(\":b.star\", \"b\")"}, "main.star:1:1: cannot load :b.star: b.star: no such file"},
		{"plain path", map[string]string{"main.star": "load(\"b.star\", \"b\")"}, `expected a label such as "//dir/x.star", ":x.star" or "@std//web.star", got "b.star" (did you mean ":b.star"?)`},
		{"outside", map[string]string{"main.star": "load(\"//../b.star\", \"b\")"}, "outside of the workspace"},
		{"dependency", map[string]string{"main.star": "load(\"@other//b.star\", \"b\")"}, "no dependency @other"},
		{"private", map[string]string{"main.star": "load(\":b.star\", \"_b\")", "b.star": "_b = 1"}, "_b"},
		{"mistake inside", map[string]string{"main.star": "load(\":b.star\", \"b\")", "b.star": "b = 1 + \"a\""}, "b.star:1:7: unknown binary op: int + string"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, globals, err := run(t, test.files, script.Options{})
			got := fmt.Sprint(globals["x"])
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, test.want) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestInputs(t *testing.T) {
	files := map[string]string{
		"main.star": `
p = arg("port", default = "80")
d = arg("debug", default = False)
r = read("conf.d/a.conf")
g = glob(["conf.d/**/*.conf"], exclude = ["**/local-*"])
m = read(":none", default = "x")
`,
		"conf.d/a.conf": "a", "conf.d/b/c.conf": "c", "conf.d/local-x.conf": "x", "conf.d/other": "o",
	}
	s, globals, err := run(t, files, script.Options{Args: map[string]string{"port": "8080", "debug": "true", "prot": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintln(globals["p"], globals["d"], globals["r"], globals["g"], globals["m"]); got != `"8080" True "a" ["conf.d/a.conf", "conf.d/b/c.conf"] "x"`+"\n" {
		t.Errorf("got %s", got)
	}
	var kinds []string
	for _, i := range s.Inputs.List() {
		kinds = append(kinds, i.Kind+" "+i.Name)
	}
	if diff := cmp.Diff([]string{"script main.star", "arg port", "arg debug", "file conf.d/a.conf", "glob conf.d/**/*.conf", "file :none"}, kinds); diff != "" {
		t.Error(diff)
	}
	if err := s.Inputs.Unused(); err == nil || !strings.Contains(err.Error(), `--arg "prot": expected an argument that the script declares: port, debug (did you mean "port"?)`) {
		t.Errorf("error = %v", err)
	}
}

func TestPrintsWithPlace(t *testing.T) {
	var got []string
	_, _, err := run(t, map[string]string{"main.star": "print(\"a\", 1)\ndef f():\n    print(\"b\")\nf()"}, script.Options{
		Print: func(at diag.Span, m string) { got = append(got, at.String()+" "+m) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"main.star:1:1 a 1", "main.star:3:5 b"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestReport(t *testing.T) {
	s, _, err := run(t, map[string]string{"main.star": "def f(x):\n\treturn {}[x]\n\ndef g():\n    f(\"é\")\n\ng()\n"}, script.Options{})
	var b strings.Builder
	s.Files.Print(&b, err, diag.PrintOptions{Prefix: "sampan: "})
	want := "sampan: main.star:2:11: key \"é\" not in dict\n" +
		"   2 | \treturn {}[x]\n" +
		"     | \t         ^\n" +
		"called from\n" +
		"  main.star:5:5 in g\n" +
		"  main.star:7:1\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestPlaced(t *testing.T) {
	s, _, err := run(t, map[string]string{"main.star": "x = 1\ny = [x]\n"}, script.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e, ok := s.Files.Placed(fmt.Errorf("solve: main.star:2:6: exit code: 7"))
	if !ok || e.Error() != "main.star:2:6: solve exit code: 7" {
		t.Errorf("%v, %v", e, ok)
	}
	for _, other := range []string{"main.star: no", "other.star:1:1: x", "main.star:x:1: y", ""} {
		if _, ok := s.Files.Placed(fmt.Errorf("%s", other)); ok {
			t.Errorf("%q is no place", other)
		}
	}
	whole := &diag.Error{At: e.At, Message: "no value is given", Cure: "give one", Stack: []diag.Frame{{In: "main"}}}
	same, ok := s.Files.Placed(whole)
	if diff := cmp.Diff(whole, same); !ok || diff != "" {
		t.Errorf("what was placed already is another: %v\n%s", ok, diff)
	}
}
