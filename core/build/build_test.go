package build

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/wire"
)

func appGraph() wire.BuildGraph {
	entrypoint, cmd, dir := []string{"cat"}, []string{"/made"}, "/app"
	g := last(imageNode("base"), localNode("src"), runNode(0, "write", "/made", "by run"),
		copyNode(wire.BuildCopy{Base: 2, From: 1, Dest: "/app/", Owner: "www:staff"}),
		configNode(wire.BuildConfig{
			Base: 3, Entrypoint: &entrypoint, Cmd: &cmd, WorkingDir: &dir,
			Env: map[string]string{"A": "2", "B": "3"}, Labels: map[string]string{"l": "v"}, Expose: []string{"80"},
		}))
	g.Tags = []string{"app:1"}
	return g
}

func TestBuildAndCache(t *testing.T) {
	r := newRoom(t)
	src := r.files(map[string]string{"a.txt": "from the context", "d/": "", "link": "-> a.txt"})
	g := appGraph()
	first, said, err := r.solve(g, map[string]string{"src": src})
	must(t, err)
	r.has(first, map[string]string{
		"made": "644 0:0 by run", "app": "755 33:50/", "app/a.txt": "640 33:50 from the context",
		"app/d": "750 33:50/", "app/link": "777 33:50 -> a.txt", "file": "600 0:0 of the base",
	})
	for _, want := range []string{"#1 [1/4] FROM base\n", "RUN write /made by run\n", "writing /made\n", "DONE", "naming to app:1\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("not told: %q in\n%s", want, said)
		}
	}
	c := first.ContainerConfig
	if diff := cmp.Diff([]string{"A=2", "B=3"}, c.Env); diff != "" {
		t.Error(diff)
	}
	if c.WorkingDir != "/app" || c.Labels["l"] != "v" || len(c.ExposedPorts) != 1 || c.Cmd[0] != "/made" || !slices.Contains(first.Names, "app:1") {
		t.Errorf("%+v %v", c, first.Names)
	}
	history, err := r.images.History(t.Context(), "app:1")
	must(t, err)
	if len(history) != 4 || history[2].CreatedBy != "RUN write /made by run" {
		t.Errorf("history: %+v", history)
	}

	// The same files elsewhere, with other times: everything is cached.
	again := r.files(map[string]string{"a.txt": "from the context", "d/": "", "link": "-> a.txt"})
	second, said, err := r.solve(g, map[string]string{"src": again})
	must(t, err)
	if second.ID != first.ID || strings.Count(said, "CACHED") != 3 || r.exec.count() != 1 {
		t.Errorf("second build: %s, %d commands run:\n%s", second.ID, r.exec.count(), said)
	}

	// Without the cache the same comes out, later.
	time.Sleep(1100 * time.Millisecond)
	g.NoCache = true
	third, said, err := r.solve(g, map[string]string{"src": again})
	must(t, err)
	if third.ID != first.ID || strings.Contains(said, "CACHED") || r.exec.count() != 2 {
		t.Errorf("third build: %s: expected %s; %d commands run:\n%s", third.ID, first.ID, r.exec.count(), said)
	}

	// A file that changed is copied again, and the command before it is not run again.
	g.NoCache = false
	changed := r.files(map[string]string{"a.txt": "changed", "d/": "", "link": "-> a.txt"})
	fourth, said, err := r.solve(g, map[string]string{"src": changed})
	must(t, err)
	if fourth.ID == first.ID || strings.Count(said, "CACHED") != 1 || r.exec.count() != 2 {
		t.Errorf("fourth build:\n%s", said)
	}
}

func TestFailedStep(t *testing.T) {
	r := newRoom(t)
	_, said, err := r.solve(last(imageNode("base"), runNode(0, "fail", "now")), nil)
	if err == nil || err.Error() != `build.star:2:5: process "fail now" did not complete successfully: exit code: 7` || !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	if !strings.Contains(said, "about to fail\n") || !strings.Contains(said, "ERROR: process") {
		t.Errorf("told:\n%s", said)
	}
	if list, err := r.images.List(t.Context(), image.ListOptions{All: true}); err != nil || len(list) != 1 {
		t.Errorf("images after a failed build: %+v %v", list, err)
	}
	_, _, err = r.solve(last(imageNode("127.0.0.1:1/none")), nil)
	if err == nil || !strings.HasPrefix(err.Error(), "build.star:1:1: image 127.0.0.1:1/none: ") {
		t.Errorf("%v", err)
	}
}

func TestCopyRules(t *testing.T) {
	r := newRoom(t)
	src := r.files(map[string]string{"a": "A", "dir/b": "B", "dir/sub/c": "C", "tree/bin/tool": "T", "evil": "-> /etc/passwd", "up": "-> ../../../../etc/passwd"})
	for _, test := range []struct {
		name         string
		source, dest string
		mode         string
		want         map[string]string
		err          string
	}{
		{name: "file to a new name", source: "a", dest: "/x/y", want: map[string]string{"x": "755 0:0/", "x/y": "640 0:0 A"}},
		{name: "file into a directory by slash", source: "a", dest: "/x/", want: map[string]string{"x/a": "640 0:0 A"}},
		{name: "file into a directory that is there", source: "/a", dest: "/etc", want: map[string]string{"etc/a": "640 0:0 A", "etc": "755 0:0/"}},
		{name: "file over a file", source: "a", dest: "/file", mode: "0755", want: map[string]string{"file": "755 0:0 A"}},
		{name: "relative", source: "a", dest: "rel", want: map[string]string{"rel": "640 0:0 A"}},
		{name: "content of a directory", source: "dir", dest: "/etc", want: map[string]string{"etc/b": "640 0:0 B", "etc/sub/c": "640 0:0 C", "etc/dir": ""}},
		{name: "directory to a new name", source: "dir/", dest: "/new", want: map[string]string{"new": "755 0:0/", "new/b": "640 0:0 B"}},
		{name: "everything", source: "", dest: "/all", want: map[string]string{"all/dir/sub/c": "640 0:0 C", "all/evil": "777 0:0 -> /etc/passwd"}},
		{name: "directory on a symlink", source: "tree", dest: "/", want: map[string]string{"bin": "777 0:0 -> usr/bin", "usr/bin/tool": "640 0:0 T"}},
		{name: "symlink of the image that leads out", source: "a", dest: "/out/f", want: map[string]string{"tmp/sampan-escape/f": "640 0:0 A"}},
		{name: "directory over a file", source: "dir", dest: "/file", err: "/file is not a directory"},
		{name: "below a file", source: "a", dest: "/file/x", err: "/file is not a directory"},
		{name: "nothing there", source: "none", dest: "/x", err: `src: no file or directory "/none"`},
		{name: "symlink of the source that leads out", source: "evil", dest: "/x", err: `no file or directory`},
		{name: "the same with dots", source: "up", dest: "/x", err: `no file or directory`},
		{name: "dots", source: "../../../etc/passwd", dest: "/x", err: `no file or directory`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &room{t, r.solver, r.images, r.layers, r.exec, r.base}
			g := last(imageNode("base"), localNode("src"), copyNode(wire.BuildCopy{Base: 0, From: 1, Source: test.source, Dest: test.dest, Mode: test.mode}))
			img, _, err := r.solve(g, map[string]string{"src": src})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || !strings.HasPrefix(err.Error(), "build.star:3:5: ") {
					t.Errorf("%v: expected %q", err, test.err)
				}
				return
			}
			must(t, err)
			r.has(img, test.want)
		})
	}
	if _, err := os.Lstat("/tmp/sampan-escape"); err == nil {
		os.RemoveAll("/tmp/sampan-escape")
		t.Error("a symlink of the image led to the host")
	}
}

func TestCopyFromStage(t *testing.T) {
	r := newRoom(t)
	g := last(imageNode("base"), runNode(0, "write", "/usr/bin/tool", "made"), wire.BuildNode{Op: "scratch"},
		copyNode(wire.BuildCopy{Base: 2, From: 1, Source: "/bin/tool", Dest: "/tool"}),
		copyNode(wire.BuildCopy{Base: 3, From: 0, Source: "/etc/passwd", Dest: "/etc/"}))
	img, _, err := r.solve(g, nil)
	must(t, err)
	want := map[string]string{
		"tool": "644 0:0 made", "etc": "755 0:0/", "etc/passwd": "644 0:0 www:x:33:34::/:/bin/sh\n",
	}
	if diff := cmp.Diff(want, r.tree(img)); diff != "" {
		t.Error(diff)
	}
	if img.Config.Created == nil || !img.Config.Created.Equal(beginning) {
		t.Errorf("created %v", img.Config.Created)
	}
	// scratch alone is an image too.
	empty, _, err := r.solve(last(wire.BuildNode{Op: "scratch"}), nil)
	if err != nil || empty.ChainID != "" {
		t.Errorf("scratch: %+v %v", empty, err)
	}
}

// Proxies are for the commands that set none themselves. They change neither the image nor what is found
// in the cache.
func TestRunProxies(t *testing.T) {
	r := newRoom(t)
	g := last(imageNode("base"), wire.BuildNode{Op: "run", Run: &wire.BuildRun{Args: []string{"write", "/f", "x"}, Env: map[string]string{"no_proxy": "mine"}}})
	g.Proxies = map[string]string{"HTTP_PROXY": "http://p:1", "no_proxy": "a"}
	img, _, err := r.solve(g, nil)
	must(t, err)
	env := r.exec.steps[0].Env
	if !slices.Contains(env, "HTTP_PROXY=http://p:1") || !slices.Contains(env, "no_proxy=mine") || slices.Contains(env, "no_proxy=a") {
		t.Errorf("env %v", env)
	}
	if slices.ContainsFunc(img.ContainerConfig.Env, func(v string) bool { return strings.Contains(strings.ToLower(v), "proxy") }) {
		t.Errorf("the image has %v", img.ContainerConfig.Env)
	}
	g.Proxies = map[string]string{"HTTP_PROXY": "http://other:1"}
	again, said, err := r.solve(g, nil)
	if err != nil || again.ID != img.ID || !strings.Contains(said, "CACHED") {
		t.Errorf("with another proxy: %v\n%s", err, said)
	}
}

func TestRunMounts(t *testing.T) {
	r := newRoom(t)
	src := r.files(map[string]string{"debs/x.deb": "package"})
	local, stage := 1, 0
	g := last(imageNode("base"), localNode("src"),
		wire.BuildNode{Op: "run", Run: &wire.BuildRun{
			Base: 0, Args: []string{"cat", "/debs/x.deb"}, Env: map[string]string{"A": "9", "Z": "z"}, Cwd: "work", User: "www", Network: "none",
			Mounts: []wire.BuildMount{
				{Input: &local, Path: "debs", Target: "/debs"},
				{Input: &stage, Path: "/etc", Target: "/mnt/deep/etc"},
				{Input: &stage, Target: "/whole"},
				{Cache: "go", Target: "/cache"},
			},
		}})
	img, said, err := r.solve(g, map[string]string{"src": src})
	must(t, err)
	if !strings.Contains(said, " package\n") {
		t.Errorf("the mount does not show the file:\n%s", said)
	}
	r.has(img, map[string]string{"debs": "", "mnt": "", "whole": "", "cache": "", "work": "755 0:0/"})
	s := r.exec.steps[0]
	if s.Cwd != "/work" || s.User != "www" || s.Network != "none" || len(s.Mounts) != 4 || s.Mounts[2].Type != "overlay" {
		t.Errorf("%+v", s)
	}
	if !slices.Contains(s.Env, "A=9") || !slices.Contains(s.Env, "Z=z") || !slices.ContainsFunc(s.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=/") }) {
		t.Errorf("env %v", s.Env)
	}
	for i, ro := range []bool{true, true, true, false} {
		if slices.Contains(s.Mounts[i].Options, "ro") != ro {
			t.Errorf("mount %d: %v", i, s.Mounts[i])
		}
	}
	usage, err := r.solver.Usage(t.Context())
	must(t, err)
	if len(usage) != 2 || usage[1].Description != "cache mount go" {
		t.Fatalf("usage %+v", usage)
	}
	for _, u := range usage { // docker system df -v parses both
		created, err := time.Parse(time.RFC3339Nano, u.CreatedAt)
		must(t, err)
		last, err := time.Parse(time.RFC3339Nano, *u.LastUsedAt)
		must(t, err)
		if age := time.Since(created); age < 0 || age > time.Hour || last.Before(created.Add(-time.Second)) {
			t.Errorf("%s: created %v, used %v", u.Description, created, last)
		}
	}
}

// Builds that need the same step at once run it once; one of them may go away.
func TestSharedStep(t *testing.T) {
	r := newRoom(t)
	r.exec.gate, r.exec.ready = make(chan struct{}), make(chan struct{}, 8)
	g := last(imageNode("base"), runNode(0, "wait"))
	ctx, cancel := context.WithCancel(t.Context())
	type outcome struct {
		id  digest.Digest
		err error
	}
	results := make(chan outcome, 4)
	start := func(ctx context.Context) {
		go func() {
			id, err := r.solver.Solve(ctx, g, nil, nil)
			results <- outcome{id, err}
		}()
	}
	start(t.Context())
	<-r.exec.ready
	start(ctx)
	start(t.Context())
	r.waitFor(func() bool { return r.solver.flights.waiting() == 3 })
	cancel()
	if got := <-results; !fault.Is(got.err, fault.Canceled) {
		t.Errorf("the canceled build: %v", got.err)
	}
	close(r.exec.gate)
	a, b := <-results, <-results
	if a.err != nil || b.err != nil || a.id != b.id || r.exec.count() != 1 {
		t.Errorf("%+v %+v, %d commands run", a, b, r.exec.count())
	}
}

// waiting counts the builds that wait for running steps.
func (f *flights) waiting() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fl := range f.running {
		n += fl.waiters
	}
	return n
}

func (r *room) waitFor(ok func() bool) {
	r.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.Fatal("it did not come to that")
}

func TestCancel(t *testing.T) {
	r := newRoom(t)
	r.exec.gate, r.exec.ready = make(chan struct{}), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.solver.Solve(ctx, last(imageNode("base"), runNode(0, "wait")), nil, nil)
		done <- err
	}()
	<-r.exec.ready
	cancel()
	if err := <-done; !fault.Is(err, fault.Canceled) {
		t.Errorf("%v", err)
	}
	if n := r.solver.flights.waiting(); n != 0 {
		t.Errorf("%d builds wait", n)
	}
	if left, _ := os.ReadDir(filepath.Join(r.solver.o.Root, tempName)); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	// The step was not finished, so the next build runs it.
	close(r.exec.gate)
	if _, said, err := r.solve(last(imageNode("base"), runNode(0, "wait")), nil); err != nil || strings.Contains(said, "CACHED") {
		t.Errorf("%v\n%s", err, said)
	}
}

func TestUsageAndPrune(t *testing.T) {
	r := newRoom(t)
	src := map[string]string{"src": r.files(map[string]string{"a.txt": "x"})}
	app, _, err := r.solve(appGraph(), src)
	must(t, err)
	// A step that led nowhere: its image is nobody's.
	_, _, err = r.solve(last(imageNode("base"), runNode(0, "write", "/lost", "x"), runNode(1, "fail")), nil)
	if err == nil {
		t.Fatal("no failure")
	}
	usage, err := r.solver.Usage(t.Context())
	must(t, err)
	if len(usage) != 4 {
		t.Fatalf("usage %+v", usage)
	}
	if _, err := r.solver.Prune(t.Context(), false, map[string][]string{"nonsense": {"x"}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	if got, err := r.solver.Prune(t.Context(), true, map[string][]string{"until": {"24h"}}); err != nil || len(got.CachesDeleted) != 0 {
		t.Errorf("%+v %v", got, err)
	}
	got, err := r.solver.Prune(t.Context(), false, nil)
	if err != nil || len(got.CachesDeleted) != 1 || got.SpaceReclaimed == 0 {
		t.Errorf("prune: %+v %v", got, err)
	}
	if _, said, err := r.solve(appGraph(), src); err != nil || strings.Count(said, "CACHED") != 3 {
		t.Errorf("the cache below a result is gone: %v\n%s", err, said)
	}
	got, err = r.solver.Prune(t.Context(), true, nil)
	if err != nil || len(got.CachesDeleted) != 3 {
		t.Errorf("prune all: %+v %v", got, err)
	}
	if img, err := r.images.Get(t.Context(), "app:1"); err != nil || img.ID != app.ID {
		t.Errorf("the result is gone: %v", err)
	}
	r.has(app, map[string]string{"made": "644 0:0 by run"})
	if usage, err := r.solver.Usage(t.Context()); err != nil || len(usage) != 0 {
		t.Errorf("usage %+v %v", usage, err)
	}
}

// A row whose image is gone is a miss.
func TestLostImage(t *testing.T) {
	r := newRoom(t)
	g := last(imageNode("base"), runNode(0, "write", "/made", "x"))
	img, _, err := r.solve(g, nil)
	must(t, err)
	_, err = r.images.Remove(t.Context(), img.ID.String(), true, false)
	must(t, err)
	again, said, err := r.solve(g, nil)
	if err != nil || again.ID != img.ID || strings.Contains(said, "CACHED") {
		t.Errorf("%v\n%s", err, said)
	}
}

func TestCheckRefuses(t *testing.T) {
	in := 5
	for name, test := range map[string]struct {
		g    wire.BuildGraph
		text string
	}{
		"no nodes":         {wire.BuildGraph{}, "target 0"},
		"target":           {wire.BuildGraph{Nodes: []wire.BuildNode{{Op: "scratch"}}, Target: 3}, "target 3"},
		"proxy":            {wire.BuildGraph{Nodes: []wire.BuildNode{{Op: "scratch"}}, Proxies: map[string]string{"Http_Proxy": "x"}}, `proxies "Http_Proxy": expected one of HTTP_PROXY`},
		"proxy of zeros":   {wire.BuildGraph{Nodes: []wire.BuildNode{{Op: "scratch"}}, Proxies: map[string]string{"no_proxy": "\x00"}}, "zero byte"},
		"unknown op":       {last(wire.BuildNode{Op: "coppy"}), `did you mean "copy"`},
		"no field":         {last(wire.BuildNode{Op: "run"}), "expected the field run"},
		"two fields":       {last(wire.BuildNode{Op: "scratch", Image: &wire.BuildImage{}}), "and no other"},
		"forward":          {last(runNode(0, "x")), "input 0"},
		"negative":         {last(imageNode("x"), runNode(-1, "x")), "input -1"},
		"mount input":      {last(imageNode("x"), wire.BuildNode{Op: "run", Run: &wire.BuildRun{Args: []string{"x"}, Mounts: []wire.BuildMount{{Input: &in, Target: "/x"}}}}), "input 5"},
		"mount of nothing": {last(imageNode("x"), wire.BuildNode{Op: "run", Run: &wire.BuildRun{Args: []string{"x"}, Mounts: []wire.BuildMount{{Target: "/x"}}}}), "either"},
		"mount at root":    {last(imageNode("x"), wire.BuildNode{Op: "run", Run: &wire.BuildRun{Args: []string{"x"}, Mounts: []wire.BuildMount{{Cache: "c", Target: "/.."}}}}), "mount target"},
		"no command":       {last(imageNode("x"), runNode(0)), "a command"},
		"local unsent":     {last(localNode("nope")), "was sent"},
		"local base":       {last(localNode("src"), runNode(0, "x")), "its base is local files"},
		"local target":     {last(localNode("src")), "target of a build is local"},
		"mode":             {last(imageNode("x"), copyNode(wire.BuildCopy{Dest: "/x", Mode: "rwx"})), "octal"},
		"no destination":   {last(imageNode("x"), copyNode(wire.BuildCopy{})), "destination"},
		"port":             {last(imageNode("x"), configNode(wire.BuildConfig{Expose: []string{"80/http"}})), "a port"},
		"variable":         {last(imageNode("x"), configNode(wire.BuildConfig{Env: map[string]string{"a=b": ""}})), "a name without ="},
	} {
		_, err := check(test.g, map[string]string{"src": "/x"})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v: expected %q", name, err, test.text)
		}
	}
}

func TestEntrypointDropsTheBaseImagesCommand(t *testing.T) {
	r := newRoom(t)
	entrypoint, cmd := []string{"/app"}, []string{"serve"}
	img, _, err := r.solve(last(imageNode("base"), configNode(wire.BuildConfig{Entrypoint: &entrypoint})), nil)
	must(t, err)
	if img.ContainerConfig.Cmd != nil {
		t.Errorf("cmd %v", img.ContainerConfig.Cmd)
	}
	img, _, err = r.solve(last(imageNode("base"), configNode(wire.BuildConfig{Cmd: &cmd}), configNode(wire.BuildConfig{Base: 1, Entrypoint: &entrypoint})), nil)
	must(t, err)
	if diff := cmp.Diff(cmd, img.ContainerConfig.Cmd); diff != "" {
		t.Error(diff)
	}
}

func TestStepLog(t *testing.T) {
	l := newStepLog()
	for range 3 {
		if n, err := l.Write(bytes.Repeat([]byte("x"), maxOutput/2)); n != maxOutput/2 || err != nil {
			t.Fatal(n, err)
		}
	}
	data, _ := l.from(0)
	if !strings.HasSuffix(string(data), "bytes]\n") || len(data) > maxOutput+100 {
		t.Errorf("%d bytes are kept", len(data))
	}
}
