package apply_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/apply"
	"github.com/sampan-project/sampan/starlark/enginetest"
	"github.com/sampan-project/sampan/starlark/env"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/plan"
	"github.com/sampan-project/sampan/starlark/script"
)

const shop = `
env("shop")
port = arg("port", default = "8080")
memory = arg("memory", default = "64m")
back = network("back")
data = volume("data")
cache = container("cache",
    image = image("shop/redis", build = build("build.star", target = "redis")),
    networks = [back], mounts = [data.at("/var/lib/redis")],
    health = probe.exec(["redis-cli", "ping"], interval = "1s"))
web = container("web", image = "nginx", networks = [back], ports = [port + ":80"], memory = memory,
    env = {"CACHE": cache.address.map(lambda ip: "redis://" + ip)},
    needs = [cache.healthy])
output("url", web.address.map(lambda ip: "http://" + ip))
`

const build = `
def redis(ctx):
    return image("debian").copy(ctx.local("src"), "/src/").run("make")
`

// world is a folder of files and an engine.
type world struct {
	t      *testing.T
	dir    string
	engine *enginetest.Engine
}

func newWorld(t *testing.T, files map[string]string) *world {
	w := &world{t, t.TempDir(), &enginetest.Engine{Remote: []string{"nginx:latest", "debian:latest"}}}
	w.engine.Started = func(c *wire.ContainerInspect) {
		if c.State.Health != nil {
			c.State.Health.Status = "healthy"
		}
	}
	for name, text := range files {
		w.write(name, text)
	}
	return w
}

func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) graph(args ...string) *graph.Graph {
	w.t.Helper()
	values := map[string]string{}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		values[k] = v
	}
	s := script.New(script.Options{Dir: w.dir, Args: values})
	file, err := s.Entry("env.star")
	if err != nil {
		w.t.Fatal(err)
	}
	g, _, err := env.Evaluate(w.t.Context(), s, file, env.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *world) plan(args ...string) (*graph.Graph, *plan.Plan) {
	w.t.Helper()
	g := w.graph(args...)
	p, err := plan.Make(w.t.Context(), w.engine, g)
	if err != nil {
		w.t.Fatal(err)
	}
	return g, p
}

var fast = apply.Options{Poll: time.Millisecond, Timeout: 2 * time.Second}

func (w *world) apply(args ...string) (apply.Result, error) {
	w.t.Helper()
	g, p := w.plan(args...)
	return apply.Run(w.t.Context(), w.engine, g, p, fast)
}

func (w *world) mustApply(args ...string) apply.Result {
	w.t.Helper()
	r, err := w.apply(args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) text(args ...string) string {
	_, p := w.plan(args...)
	var b strings.Builder
	p.Print(&b)
	return b.String()
}

func (w *world) shop() {
	w.write("env.star", shop)
	w.write("build.star", build)
	w.write("src/Makefile", "all:")
}

func before(t *testing.T, log []string, first, second string) {
	t.Helper()
	i, j := slices.Index(log, first), slices.Index(log, second)
	if i < 0 || j < 0 || i > j {
		t.Errorf("want %q before %q in %q", first, second, log)
	}
}

func TestApplyThenNothingThenDestroy(t *testing.T) {
	w := newWorld(t, nil)
	w.shop()
	result := w.mustApply()
	log := w.engine.Done()
	for _, pair := range [][2]string{
		{"pull debian:latest", "build shop/redis:latest"}, {"build shop/redis:latest", "create shop-cache"},
		{"network shop-back", "create shop-cache"}, {"volume shop-data", "create shop-cache"},
		{"start shop-cache", "create shop-web"}, {"pull nginx:latest", "create shop-web"}, {"create shop-web", "start shop-web"},
	} {
		before(t, log, pair[0], pair[1])
	}
	cache, web := w.engine.Container("shop-cache"), w.engine.Container("shop-web")
	if want := []string{"CACHE=redis://" + cache.NetworkSettings.Networks["shop-back"].IPAddress}; !slices.Equal(web.Config.Env, want) {
		t.Errorf("env = %q, want %q", web.Config.Env, want)
	}
	if got := cache.NetworkSettings.Networks["shop-back"].Aliases; !slices.Equal(got, []string{"cache"}) {
		t.Errorf("aliases = %q", got)
	}
	if diff := cmp.Diff(map[string][]wire.PortBinding{"80/tcp": {{HostPort: "8080"}}}, web.HostConfig.PortBindings); diff != "" {
		t.Error(diff)
	}
	if len(result.Outputs) != 1 || !strings.HasPrefix(result.Outputs[0].Value, "http://10.0.0.") {
		t.Errorf("outputs = %v", result.Outputs)
	}
	if diff := cmp.Diff([]string{"local/src/", "local/src/Makefile"}, w.engine.Locals); diff != "" {
		t.Error(diff)
	}

	if got := w.text(); !strings.Contains(got, "no changes") {
		t.Errorf("a plan after an apply: %s", got)
	}
	w.mustApply()
	if log := w.engine.Done(); len(log) != 0 {
		t.Errorf("a second apply did %q", log)
	}

	g := w.graph()
	p, err := plan.Destroy(t.Context(), w.engine, g, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.Outputs = nil
	if _, err := apply.Run(t.Context(), w.engine, g, p, fast); err != nil {
		t.Fatal(err)
	}
	before(t, w.engine.Done(), "remove shop-web", "remove shop-cache")
	if got := w.engine.Left(); got != "0 containers, 2 images, 0 networks, 0 volumes" { // the two that were pulled
		t.Errorf("left: %s", got)
	}
}

func TestOneAttribute(t *testing.T) {
	w := newWorld(t, nil)
	w.shop()
	w.mustApply()
	_, p := w.plan("memory=80m")
	if len(p.Changes) != 1 || p.Changes[0].Address.String() != "container.web" || len(p.Changes[0].Attributes) != 1 {
		t.Fatalf("changes = %+v", p.Changes)
	}
	text := w.text("memory=80m")
	if !strings.Contains(text, `memory: "64m" -> "80m"`) || strings.Contains(text, "container.cache") || strings.Contains(text, "network.") {
		t.Errorf("plan:\n%s", text)
	}
	w.engine.Done()
	w.mustApply("memory=80m")
	if diff := cmp.Diff([]string{"remove shop-web", "create shop-web", "start shop-web"}, w.engine.Done()); diff != "" {
		t.Error(diff)
	}
	if got := w.text("memory=80m"); !strings.Contains(got, "no changes") {
		t.Errorf("a plan after an apply: %s", got)
	}
}

func TestWhatFollows(t *testing.T) {
	tests := []struct {
		name   string
		change func(w *world)
		want   []string // action address
	}{
		{"a local file of the build", func(w *world) { w.write("src/Makefile", "other:") },
			[]string{"update image.shop/redis", "replace container.cache", "replace container.web"}},
		{"a base image", func(w *world) { w.engine.AddImage("debian:latest") },
			[]string{"update image.shop/redis", "replace container.cache", "replace container.web"}},
		{"a pulled image", func(w *world) { w.engine.AddImage("nginx:latest") }, []string{"replace container.web"}},
		{"a network", func(w *world) {
			w.write("env.star", strings.Replace(shop, `network("back")`, `network("back", internal = True)`, 1))
		},
			[]string{"replace network.back", "replace container.cache", "replace container.web"}},
		{"a need alone", func(w *world) { w.write("env.star", strings.Replace(shop, "cache.healthy", "cache.started", 1)) }, nil},
		{"a comment", func(w *world) { w.write("env.star", "# new\n"+shop) }, nil},
		{"a container that ended", func(w *world) {
			s := w.engine.Container("shop-web").State
			s.Status, s.ExitCode = "exited", 1
		}, []string{"start container.web"}},
		{"a container that is gone", func(w *world) {
			if err := w.engine.ContainerRemove(context.Background(), "shop-web", client.RemoveOptions{}); err != nil {
				w.t.Fatal(err)
			}
		}, []string{"create container.web"}},
		{"a resource less", func(w *world) {
			i := strings.Index(shop, "web = container")
			w.write("env.star", shop[:i])
		}, []string{"delete container.web"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.shop()
			w.mustApply()
			test.change(w)
			_, p := w.plan()
			var got []string
			for _, c := range p.Changes {
				got = append(got, string(c.Action)+" "+c.Address.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			w.mustApply()
			if got := w.text(); !strings.Contains(got, "no changes") {
				t.Errorf("a plan after an apply: %s", got)
			}
		})
	}
}

func TestLeavesNoOldImage(t *testing.T) {
	w := newWorld(t, nil)
	w.shop()
	w.mustApply()
	left := w.engine.Left()
	w.write("src/Makefile", "other:")
	w.mustApply()
	if got := w.engine.Left(); got != left {
		t.Errorf("left %s, was %s", got, left)
	}
}

func TestInterruptedApplyGoesOn(t *testing.T) {
	whole := newWorld(t, nil)
	whole.shop()
	whole.mustApply()
	for _, at := range whole.engine.Done() {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t, nil)
			w.shop()
			w.engine.Fail = map[string]error{at: errors.New("the cable was pulled")}
			if _, err := w.apply(); err == nil || !strings.Contains(err.Error(), "env.star:") || !strings.Contains(err.Error(), "the cable was pulled") {
				t.Fatalf("error = %v", err)
			}
			w.engine.Fail = nil
			w.mustApply()
			if got, want := w.engine.Left(), whole.engine.Left(); got != want {
				t.Errorf("left %s, want %s", got, want)
			}
			if got := w.text(); !strings.Contains(got, "no changes") {
				t.Errorf("a plan after an apply: %s", got)
			}
		})
	}
}

func TestParallel(t *testing.T) {
	w := newWorld(t, map[string]string{"env.star": `
[container(n, image = "nginx") for n in ["a", "b", "c", "d"]]
`})
	var once sync.WaitGroup
	once.Add(4)
	w.engine.OnStart = func(string) { once.Done(); once.Wait() } // all four at once, or never
	w.mustApply()
	if w.engine.MostRunning != 4 {
		t.Errorf("most at the same time: %d, want 4", w.engine.MostRunning)
	}
	if log := w.engine.Done(); strings.Count(strings.Join(log, "\n"), "pull") != 1 {
		t.Errorf("one pull for all: %q", log)
	}
}

func TestFailuresNameTheLine(t *testing.T) {
	tests := []struct {
		name, script string
		started      func(*wire.ContainerInspect)
		want         string
	}{
		{"a missing image", "x = 1\ncontainer(\"a\", image = \"nowhere\")", nil,
			`env.star:2:1: container "a": manifest for nowhere:latest not found`},
		{"never pulled", `container("a", image = "nginx", pull = "never")`, nil, `env.star:1:1: container "a": No such image: nginx:latest`},
		{"no probe", "a = container(\"a\", image = \"nginx\")\nb = container(\"b\", image = \"nginx\", needs = [a.healthy])", nil,
			`env.star:2:5: container "b": container.a has no health probe, so it cannot become healthy`},
		{"ended before", "a = container(\"a\", image = \"nginx\", health = probe.shell(\"true\"))\nb = container(\"b\", image = \"nginx\", needs = [a.healthy])",
			func(c *wire.ContainerInspect) { c.State.Status, c.State.ExitCode = "exited", 3 },
			`env.star:2:5: container "b": container.a has ended with status 3 before it was healthy; it last wrote: last words of id`},
		{"unhealthy", "a = container(\"a\", image = \"nginx\", health = probe.shell(\"true\"))\nb = container(\"b\", image = \"nginx\", needs = [a.healthy])",
			func(c *wire.ContainerInspect) {
				c.State.Health = &wire.HealthState{Status: "unhealthy", Log: []wire.HealthResult{{ExitCode: 1, Output: "no\n"}}}
			}, `container.a is unhealthy: its probe ended with status 1: no`},
		{"never healthy", "a = container(\"a\", image = \"nginx\", health = probe.shell(\"true\"))\nb = container(\"b\", image = \"nginx\", needs = [a.healthy])",
			func(*wire.ContainerInspect) {}, `container.a is not healthy after`},
		{"failed work", "a = container(\"a\", image = \"nginx\")\nb = container(\"b\", image = \"nginx\", needs = [a.completed])",
			func(c *wire.ContainerInspect) { c.State.Status, c.State.ExitCode = "exited", 1 }, `container.a has ended with status 1`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, map[string]string{"env.star": test.script})
			w.engine.Started = test.started
			g, p := w.plan()
			_, err := apply.Run(t.Context(), w.engine, g, p, apply.Options{Poll: time.Millisecond, Timeout: 50 * time.Millisecond})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v\nwant     %s", err, test.want)
			}
		})
	}
}

func TestCompletedWork(t *testing.T) {
	w := newWorld(t, map[string]string{"env.star": `
migrate = container("migrate", image = "nginx")
app = container("app", image = "nginx", needs = [migrate.completed])
`})
	w.engine.Started = func(c *wire.ContainerInspect) {
		if strings.HasSuffix(c.Name, "migrate") {
			c.State.Status = "exited"
		}
	}
	w.mustApply()
	if got := w.text(); !strings.Contains(got, "no changes") {
		t.Errorf("having ended with status 0 is as wanted: %s", got)
	}
}

func TestForeignName(t *testing.T) {
	w := newWorld(t, map[string]string{"env.star": "env(\"shop\")\nvolume(\"data\")"})
	if _, err := w.engine.VolumeCreate(t.Context(), wire.VolumeCreateRequest{Name: "shop-data"}); err != nil {
		t.Fatal(err)
	}
	_, err := plan.Make(t.Context(), w.engine, w.graph())
	if !fault.Is(err, fault.Conflict) || !strings.HasPrefix(err.Error(), `env.star:2:1: volume "data": the engine has a volume named shop-data`) {
		t.Errorf("error = %v", err)
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t, map[string]string{"env.star": `
a = container("a", image = "nginx", health = probe.shell("true"))
b = container("b", image = "nginx", needs = [a.healthy])
`})
	w.engine.Started = nil
	ctx, cancel := context.WithCancel(t.Context())
	w.engine.OnStart = func(string) { cancel() }
	g, p := w.plan()
	if _, err := apply.Run(ctx, w.engine, g, p, fast); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	if w.engine.Container(g.Env+"-b") != nil {
		t.Error("b was made after the cancellation")
	}
}
