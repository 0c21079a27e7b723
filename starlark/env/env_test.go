package env_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/env"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/script"
	"github.com/sampan-project/sampan/stdlib"
)

func evaluate(t *testing.T, files map[string]string, args map[string]string) (*graph.Graph, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := script.New(script.Options{Dir: dir, Args: args, Environ: func(name string) (string, bool) {
		v, ok := map[string]string{"DB_PASSWORD": "hunter2"}[name]
		return v, ok
	}})
	file, err := s.Entry("env.star")
	if err != nil {
		t.Fatal(err)
	}
	low, high := int64(576), int64(9000)
	g, _, err := env.Evaluate(t.Context(), s, file, env.Options{Schemas: func(context.Context) ([]wire.Schema, error) {
		return []wire.Schema{{Kind: "network", Driver: "bridge", Attributes: []wire.Attribute{
			{Name: "mtu", Type: "int", Min: &low, Max: &high}, {Name: "mode", Type: "string", Enum: []string{"nat", "routed"}},
		}}}, nil
	}})
	return g, err
}

func one(t *testing.T, text string) (*graph.Graph, error) {
	t.Helper()
	return evaluate(t, map[string]string{"env.star": text}, nil)
}

func TestMistakes(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"unexpected argument", `container("a", image = "x", memmory = "1g")`, `env.star:1:29: container "a": unexpected argument "memmory" (did you mean "memory"?)`},
		{"missing image", `container("a")`, `env.star:1:1: container "a": missing argument "image": expected image or name of an image`},
		{"name", `container("a/b", image = "x")`, `env.star:1:11: container "a/b": name: expected a name of letters`},
		{"field", "a = container(\"a\", image = \"x\")\ncontainer(\"b\", image = \"x\", needs = [a.healty])", `env.star:2:40: container has no .healty field or method (did you mean "healthy"?)`},
		{"field of nothing near", "a = container(\"a\", image = \"x\")\nb = a.succeeded", `env.star:2:7: container has no .succeeded field or method`},
		{"size", `container("a", image = "x", memory = "12q")`, `env.star:1:38: container "a": memory: expected a size such as 512m or 2g, got string "12q"`},
		{"port", `container("a", image = "x", ports = ["80", "http:80"])`, `env.star:1:44: container "a": ports[1]: expected a port such as "8080:80"`},
		{"the same port", `container("a", image = "x", ports = ["80:80", "80:80/tcp"])`, `env.star:1:47: container "a": ports[1]: the port is given twice`},
		{"env value", `container("a", image = "x", env = {"A": 1})`, `env.star:1:41: container "a": env["A"]: expected string, got int 1`},
		{"image", `container("a", image = "X Y")`, `env.star:1:24: container "a": image: expected an image`},
		{"a lone network", "n = network(\"n\")\ncontainer(\"a\", image = \"x\", networks = n)", `env.star:2:40: container "a": networks: expected list of network, got network`},
		{"network mode", `container("a", image = "x", network_mode = "hots")`, `network_mode: expected bridge, host or none, got "hots" (did you mean "host"?)`},
		{"restart", `container("a", image = "x", restart = "allways")`, `(did you mean "always"?)`},
		{"volume without place", "v = volume(\"v\")\ncontainer(\"a\", image = \"x\", mounts = [v])", `env.star:2:39: container "a": mounts[0]: expected mount, got volume`},
		{"two mounts", "v = volume(\"v\")\ncontainer(\"a\", image = \"x\", mounts = [v.at(\"/d\"), tmpfs().at(\"/d/\")])", `mounts[1]: two mounts at "/d"`},
		{"twice", "volume(\"v\")\n\nvolume(\"v\")", `env.star:3:1: volume "v": volume.v is declared already at env.star:1:1`},
		{"option", `network("n", options = {"mut": 1})`, `(did you mean "mtu"?)`},
		{"option value", `network("n", options = {"mtu": 10})`, `env.star:1:32: network "n": options["mtu"]: expected a whole number from 576 to 9000, got "10"`},
		{"option of a list", `network("n", options = {"mode": "rooted"})`, `expected one of nat, routed, got "rooted" (did you mean "routed"?)`},
		{"driver", `network("n", driver = "bridgee")`, `env.star:1:23: network "n": driver: expected a network driver of this engine (bridge), got "bridgee" (did you mean "bridge"?)`},
		{"subnet", `network("n", subnet = "10.300.0.0/16")`, `subnet: expected a subnet such as "10.90.1.0/24"`},
		{"gateway", `network("n", subnet = "10.1.0.0/16", gateway = "10.2.0.1")`, `gateway: expected an address of 10.1.0.0/16, got "10.2.0.1"`},
		{"our label", `volume("v", labels = {"sh.sampan.env": "x"})`, `labels beginning with sh.sampan. cannot be given`},
		{"compared", "a = container(\"a\", image = \"x\")\nif a.address == \"1\":\n    pass", `env.star:2:4: container.a.address is not known before apply (declared at env.star:1:5)`},
		{"formatted", "a = container(\"a\", image = \"x\")\nx = \"http://%s\" % a.address", `env.star:2:19: container.a.address is not known`},
		{"formatted by its method", "a = container(\"a\", image = \"x\")\nx = \"{}\".format(a.address)", `env.star:2:10: container.a.address is not known`},
		{"joined", "a = container(\"a\", image = \"x\")\nx = \",\".join([a.address])", `env.star:2:9: container.a.address is not known`},
		{"added", "a = container(\"a\", image = \"x\")\nx = \"http://\" + a.address", `container.a.address is not known`},
		{"in a name", "a = container(\"a\", image = \"x\")\nvolume(a.id)", `env.star:2:8: volume: name: container.a.id is not known`},
		{"a secret's length", "x = len(secret(\"db_password\"))", `secret`},
		{"a missing secret", `secret("none")`, `env.star:1:1: secret "none": env: the variable NONE is not set`},
		{"a condition", "a = container(\"a\", image = \"x\")\nif a.healthy:\n    pass", `a.healthy is not known before apply`},
		{"replicas' port", `container("a", image = "x", ports = ["80:80"], replicas = 2)`, `env.star:1:37: container "a": ports: all 2 replicas would publish`},
		{"replicas' address", "a = container(\"a\", image = \"x\", replicas = 2)\nx = a.address", `has 2 replicas, each with an address of its own`},
		{"named twice", "env(\"a\")\nenv(\"b\")", `env.star:2:1: env "b": the environment is named already at env.star:1:1`},
		{"env's name", `env("My Shop")`, `env.star:1:5: env "My Shop": name: expected a name of small letters`},
		{"build script", `image("a", build = build("no.star"))`, `env.star:1:26: build: script: no.star: no such file`},
		{"build as a string", `image("a", build = "build.star")`, `image "a": build: expected build, got string "build.star"`},
		{"outside", `read("//../../etc/passwd")`, `is outside of the workspace`},
		{"absolute", `read("/etc/passwd")`, `expected a label`},
		{"in a function", "def f():\n    volume(\"v\", size = 1)\nf()", `env.star:2:17: volume "v": unexpected argument "size"`},
		{"library", `load("@std//wep.star", "url")`, `no wep.star in the standard library (did you mean "@std//web.star"?)`},
		{"probe", `container("a", image = "x", health = ["true"])`, `health: expected probe, got list`},
		{"ulimit", `container("a", image = "x", ulimits = {"nofile": "9:1"})`, `ulimits["nofile"]: expected a limit such as 1024`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := one(t, test.script)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v\nwant    %s", err, test.want)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "env.star:") {
				t.Errorf("no place: %v", err)
			}
		})
	}
}

func TestHostile(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"loop", "def f():\n    for i in range(10000):\n        for j in range(100000):\n            pass\nf()", "the script takes more than"},
		{"memory", "def f():\n    x = []\n    for i in range(10000):\n        x.append(\"y\" * 1000000 + str(i))\nf()", "memory"},
		{"repeat", `x = "y" * 1000000000`, "is too large"},
		{"list", `x = [0] * 1000000000`, "is too large"},
		{"number", "def f():\n    x = 3\n    for i in range(100):\n        x = x * x\nf()", "is too large"},
		{"join", "x = (\"y\" * 60000000).join([\"a\"] * 1000)", "is too large"},
		{"replace", "x = (\"y\" * 1000000).replace(\"y\", \"z\" * 1000000)", "is too large"},
		{"nesting", strings.Repeat("(", 100000), "within each other"},
		{"recursion", "def f():\n    f()\nf()", "calls itself"},
		{"range", "x = list(range(1000000000))", "range: expected at most"},
		{"shift", "def f():\n    x = 1\n    for i in range(1000):\n        x <<= 500\nf()", "is too large"},
		{"squares in a dict", "def f():\n    x = {0: 3}\n    for i in range(100):\n        x[0] *= x[0]\nf()", "is too large"},
		{"squares of a call", "def f():\n    x = {0: 3}\n    x[f()] *= 2\nf()", "expected a name"},
		{"digits", "x = int(\"9\" * 1000000)", "expected at most 20000 digits"},
		{"deep text", "def f():\n    x = []\n    for i in range(100000):\n        x = [x]\n    return str(x)\nf()", "too large to be shown"},
		{"wide text", "def f():\n    x = []\n    for i in range(60):\n        x = [x, x]\n    return \"%s\" % x\nf()", "too large to be shown"},
		{"deep JSON", "x = json.decode(\"[\" * 1000000)", "within each other"},
		{"struct", "def f():\n    x = 1\n    for i in range(1000):\n        x = struct(x = x)\n    print(x)\nf()", "too large to be shown"},
		{"while", "def f():\n    while True:\n        pass\nf()", "while"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := one(t, test.script)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v\nwant    %s", err, test.want)
			}
		})
	}
}

func TestLinkOutOfTheWorkspace(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "way")); err != nil {
		t.Fatal(err)
	}
	for script_, want := range map[string]string{
		`read("way/secret")`:       "way/secret",
		`read(":way/secret")`:      "escapes",
		`load(":way/x.star", "x")`: "escapes",
	} {
		if err := os.WriteFile(filepath.Join(dir, "env.star"), []byte(script_), 0o644); err != nil {
			t.Fatal(err)
		}
		s := script.New(script.Options{Dir: dir})
		file, err := s.Entry("env.star")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := env.Evaluate(t.Context(), s, file, env.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error = %v, want %s", script_, err, want)
		}
	}
}

// What says the same is the same.
func TestNormalised(t *testing.T) {
	spec := func(text string) map[string]any {
		t.Helper()
		g, err := one(t, text)
		if err != nil {
			t.Fatal(err)
		}
		return graph.Canonical(g.Resources[len(g.Resources)-1].Spec)
	}
	for _, pair := range [][2]string{
		{`container("a", image = "nginx", memory = "64m")`, `container("a", image = "docker.io/library/nginx:latest", memory = 64 * 1024 * 1024)`},
		{`container("a", image = "nginx", ports = ["80:80", "53:53/udp"])`, `container("a", image = "nginx", ports = ("0.0.0.0:53:53/udp", "80:80/tcp"))`},
		{`container("a", image = "nginx", ports = ["8000-8001:80-81"])`, `container("a", image = "nginx", ports = ["8000:80", "8001:81"])`},
		{`container("a", image = "nginx", command = "ls")`, `container("a", image = "nginx", command = ["/bin/sh", "-c", "ls"])`},
		{`container("a", image = "nginx", cap_add = ["net_admin"], restart = "no")`, `container("a", image = "nginx", cap_add = ["CAP_NET_ADMIN"], network_mode = "bridge")`},
		{`container("a", image = "nginx", cpus = 0.5, tty = False)`, `container("a", image = "nginx", cpus = "0.5", env = {}, user = None)`},
		{`container("a", image = "nginx", pull = "always", once = True)`, `container("a", image = "nginx")`},
	} {
		if diff := cmp.Diff(spec(pair[0]), spec(pair[1])); diff != "" {
			t.Errorf("%s\n%s\n%s", pair[0], pair[1], diff)
		}
	}
}

func TestReferences(t *testing.T) {
	g, err := evaluate(t, map[string]string{
		"env.star": `
load("//lib/names.star", "db_name")
env("shop")
back = network("back")
data = volume("data")
app = image("shop/app", build = build("sub/build.star", args = {"base": "alpine"}), tags = ["dev", "latest"])
db = container(db_name, image = "shop/app:dev", networks = [back], mounts = [data.at("/d", read_only = True, subpath = "x")],
    env = {"PASSWORD": secret("db_password")}, health = probe.exec(["true"]))
web = container("web", image = app, env = {"DB": db.address.map(lambda a: "tcp://" + a)}, needs = [db.healthy])
output("db", db.address)
task("check", lambda ctx: None, args = {"n": arg.int(default = 3)}, doc = "Check it.")
`,
		"lib/names.star": `db_name = "db"`,
		"sub/build.star": `
base = arg("base")
def main(ctx):
    return image(base).copy(ctx.local("files"), "/files/")
`,
		"sub/files/a": "a",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range g.Ordered() {
		names = append(names, r.Address.String()+" "+r.Name)
	}
	want := []string{"network.back shop-back", "volume.data shop-data", "image.shop/app shop/app:dev", "container.db shop-db", "container.web shop-web"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	web := g.Find(graph.Address{Kind: graph.KindContainer, Name: "web"})
	if got := graph.CanonicalJSON(graph.Canonical(web.Spec)); !strings.Contains(got, `"DB":{"as":"tcp://<container.db.address>","unknown":"container.db.address"}`) || !strings.Contains(got, `"image":"shop/app:dev"`) {
		t.Errorf("spec = %s", got)
	}
	var needs []string
	for _, n := range web.Needs {
		needs = append(needs, n.On.String()+"."+string(n.Condition))
	}
	if diff := cmp.Diff([]string{"image.shop/app.exists", "container.db.healthy"}, needs); diff != "" {
		t.Error(diff)
	}
	db := g.Find(graph.Address{Kind: graph.KindContainer, Name: "db"})
	if got := graph.CanonicalJSON(graph.Canonical(db.Spec)); strings.Contains(got, "hunter2") || !strings.Contains(got, `"secret":"db_password"`) {
		t.Errorf("spec = %s", got)
	}
	if len(g.Tasks) != 1 || len(g.Outputs) != 1 || g.Env != "shop" {
		t.Errorf("tasks %v, outputs %v, env %q", g.Tasks, g.Outputs, g.Env)
	}
}

func TestReplicas(t *testing.T) {
	g, err := one(t, "a = container(\"a\", image = \"x\", replicas = 2, networks = [network(\"n\")])\ncontainer(\"b\", image = \"x\", needs = [a])")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range g.Ordered() {
		got = append(got, r.Address.String())
	}
	if diff := cmp.Diff([]string{"network.n", "container.a-1", "container.a-2", "container.b"}, got); diff != "" {
		t.Error(diff)
	}
	if c := g.Resources[1].Spec.(*graph.Container); c.Aliases[0] != "a" {
		t.Errorf("aliases = %q", c.Aliases)
	}
}

// indented finds the examples in a docstring: lines that begin with a call, indented by eight.
var indented = regexp.MustCompile(`(?m)^        (\S.*)$`)

// TestLibrary evaluates the standard library's files and the examples in their docstrings.
func TestLibrary(t *testing.T) {
	files, err := fs.Glob(stdlib.FS, "*.star")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := fs.ReadFile(stdlib.FS, file)
		if err != nil {
			t.Fatal(err)
		}
		var names, examples []string
		for _, part := range strings.Split(string(text), "\ndef ")[1:] {
			name, _, _ := strings.Cut(part, "(")
			if strings.HasPrefix(name, "_") {
				continue
			}
			names = append(names, `"`+name+`"`)
			_, rest, documented := strings.Cut(part, `"""`)
			doc, _, _ := strings.Cut(rest, `"""`)
			doc, _, _ = strings.Cut(doc, "Args:")
			if !documented || !indented.MatchString(doc) {
				t.Errorf("%s: %s has no docstring with an example", file, name)
			}
			for _, m := range indented.FindAllStringSubmatch(doc, -1) {
				examples = append(examples, m[1])
			}
		}
		script := "load(\"@std//" + file + "\", " + strings.Join(names, ", ") + ")\nport = 8080\n" + strings.Join(examples, "\n")
		g, err := evaluate(t, map[string]string{"env.star": script, "public/index.html": "x"}, nil)
		if err != nil {
			t.Errorf("%s: %v\n%s", file, err, script)
		} else if len(g.Resources)+len(g.Outputs) == 0 {
			t.Errorf("%s: the examples declare nothing", file)
		}
	}
}

// TestMistakeThroughLibrary shows the user's own line, not the library's.
func TestMistakeThroughLibrary(t *testing.T) {
	_, err := one(t, "load(\"@std//web.star\", \"static_site\")\nstatic_site(\"a\", bind(\":x\"), memmory = 1)")
	if err == nil || !strings.HasPrefix(err.Error(), `env.star:2:`) || !strings.Contains(err.Error(), `did you mean "memory"`) {
		t.Errorf("error = %v", err)
	}
}

func TestExamples(t *testing.T) {
	for _, f := range env.Funcs() {
		if f.Doc == "" || f.Example == "" {
			t.Errorf("%s has no doc or no example", f.Name)
		}
		for _, p := range f.Params {
			if p.Doc == "" {
				t.Errorf("%s: %s has no doc", f.Name, p.Name)
			}
		}
	}
}
