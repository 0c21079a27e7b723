package env_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/env"
	"github.com/sampan-project/sampan/starlark/script"
)

// FuzzEvaluate gives any text to an evaluation: it ends in time, with a graph or an error that can
// be printed, and never with a panic.
func FuzzEvaluate(f *testing.F) {
	for _, seed := range []string{
		`container("a", image = "x", ports = ["80:80"], env = {"A": "1"}, memory = "64m")`,
		"n = network(\"n\", subnet = \"10.0.0.0/8\")\ncontainer(\"a\", image = \"x\", networks = [n], mounts = [volume(\"v\").at(\"/x\")])",
		"a = container(\"a\", image = \"x\")\nif a.address == 1: pass",
		"x = [y * 2 for y in range(3) if y != 1] + [lambda z: z % 2]",
		"x = {}\nx[\"a\"] = x\nprint(x)", "x = \"%s {}\" % 1\ny = \"{}\".format(x)", "load(\":env.star\", \"x\")", "load(\"@std//web.star\", \"url\")\noutput(\"u\", url(1))",
		"def f(*a, **k):\n    return f\nf()()(1, 2, b = 3)", "image(\"a\", build = build(\":env.star\"))", "x = 1 << 9 << 9 << 511", "task(\"t\", lambda ctx: ctx, args = {\"a\": arg.int(default = 1)})",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "env.star"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s := script.New(script.Options{Dir: dir, Limits: script.Limits{Steps: 100_000, Memory: 256 << 20, Time: 5 * time.Second}})
		file, err := s.Entry("env.star")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		g, _, err := env.Evaluate(t.Context(), s, file, env.Options{})
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
		if err != nil {
			s.Files.Print(devNull{}, err, diag.PrintOptions{Trace: true})
			return
		}
		g.Document()
	})
}

type devNull struct{}

func (devNull) Write(p []byte) (int, error) { return len(p), nil }
