package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

func startNext(o *CreateOptions) { o.StartNext = true }

func TestStartNext(t *testing.T) {
	b := newBench(t)
	if out, status := b.run(shellSpec("echo $A; exit 3"), startNext); out != "b" || status != 3 {
		t.Errorf("%q, status %d", out, status)
	}
	if err := os.WriteFile(b.bundle+"/rootfs/noise", []byte{1, 2}, 0o755); err != nil { // #nosec G306 -- a program
		t.Fatal(err)
	}
	spec := shellSpec("")
	spec.Process.Args = []string{"/noise"}
	c, _, err := b.create(spec, startNext)
	if err == nil {
		err = c.Start(t.Context())
	}
	if !errors.Is(err, unix.ENOEXEC) || !fault.Is(err, fault.Invalid) {
		t.Errorf("a program that is none: %v", err)
	}
	spec = shellSpec("true")
	spec.Process.Cwd = "/bin/sh"
	if _, _, err := b.create(spec, startNext); err == nil {
		t.Error("a directory that is none")
	}
}

// Of those who make a container of one id at a time one succeeds, and the others take nothing away from it.
func TestOneIDAtATime(t *testing.T) {
	b := newBench(t)
	for round := range 5 {
		id := fmt.Sprintf("same-%d-%d", os.Getpid(), round)
		spec := shellSpec("true")
		spec.Linux.CgroupsPath = testCgroup(id)
		var all sync.WaitGroup
		made := make(chan *Container, 8)
		for range cap(made) {
			all.Go(func() {
				c, err := b.Create(t.Context(), id, CreateOptions{Bundle: b.bundle, Spec: spec, ClampDefaults: true})
				if err == nil {
					made <- c
				} else if !fault.Is(err, fault.Exists) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if len(made) != 1 {
			t.Fatalf("%d were made", len(made))
		}
		c := <-made
		if err := c.Start(t.Context()); err != nil {
			t.Error(err)
		}
		if err := c.Delete(t.Context(), true); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
}

// What a creation leaves that was killed before there was a record is in nobody's way.
func TestCutOffBeforeTheRecord(t *testing.T) {
	b := newBench(t)
	remains := func(id string) string {
		dir := filepath.Join(b.options.Root, id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{seccompFile, recordFile + ".new"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	for _, id := range []string{"x", "y"} {
		remains(id)
	}
	if err := b.ClearAll(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(b.options.Root); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}

	c := &Container{runtime: b.Runtime, dir: remains("z")}
	making, err := c.claim()
	if err != nil {
		t.Fatal(err)
	}
	spec := shellSpec("true")
	spec.Linux.CgroupsPath = testCgroup("z")
	create := func() (*Container, error) {
		return b.Create(t.Context(), "z", CreateOptions{Bundle: b.bundle, Spec: spec, ClampDefaults: true})
	}
	if _, err := create(); !fault.Is(err, fault.Exists) {
		t.Errorf("while it is made: %v, want class exists", err)
	}
	if err := b.Clear("z"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(c.dir); err != nil {
		t.Errorf("it was cleared while it is made: %v", err)
	}
	making.Close()
	if c, err = create(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := b.Clear("z"); err != nil || !c.recorded() {
		t.Errorf("a container is cleared: %v", err)
	}
	if err := c.Delete(t.Context(), true); err != nil {
		t.Error(err)
	}
}

// A namespace that is not there is named, and so is what is none.
func TestNamespaceThatIsNotThere(t *testing.T) {
	b := newBench(t)
	missing := filepath.Join(t.TempDir(), "missing")
	for _, path := range []string{missing, "/proc/self/stat", "/"} {
		for i := range shellSpec("").Linux.Namespaces {
			spec := shellSpec("true")
			ns := &spec.Linux.Namespaces[i]
			if ns.Path = path; ns.Type == specs.MountNamespace {
				continue // whose container has its filesystem from elsewhere
			}
			spec.Hostname, spec.Linux.Sysctl = "", nil
			_, _, err := b.create(spec)
			if err == nil {
				t.Fatalf("%s %s: no error", ns.Type, path)
			}
			if path == missing && err.Error() != "linux.namespaces: "+string(ns.Type)+": open "+missing+": no such file or directory" {
				t.Errorf("%s %s: %v", ns.Type, path, err)
			}
		}
	}
	if left, err := os.ReadDir(b.options.Root); err != nil && !errors.Is(err, fs.ErrNotExist) || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A creation that is killed right before it has set a limit which the init does not fit into leaves that to the start,
// or to whoever sets another one.
func TestFewPidsAreLimitedByTheStart(t *testing.T) {
	needRoot(t, "a limit is set")
	b := newBench(t)
	few, none, other := int64(5), int64(-1), int64(7)
	limit := func(n *int64) *specs.LinuxResources { return &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: n}} }
	for want, update := range map[string]*int64{"5": nil, "7": &other} {
		spec := rootSpec("cd /sys/fs/cgroup; test -d pids && cd pids; cat pids.max")
		spec.Linux.Resources = limit(&few)
		c, output, err := b.create(spec)
		if err != nil {
			t.Fatal(err)
		}
		// As it is when the creation is killed there.
		if err := c.cgroup.Set(limit(&none)); err != nil {
			t.Fatal(err)
		}
		c.record.FewPids = &few
		if err := c.save(); err != nil {
			t.Fatal(err)
		}
		loaded, err := b.Load(c.ID())
		if err != nil {
			t.Fatal(err)
		}
		if update != nil {
			if err := loaded.Update(limit(update)); err != nil {
				t.Fatal(err)
			}
			if loaded, err = b.Load(c.ID()); err != nil {
				t.Fatal(err)
			}
		}
		if err := loaded.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if out := output(); out != want {
			t.Errorf("pids.max is %q, want %s", out, want)
		}
	}
}

// A standard stream that does not block makes package os wait for it with epoll, in the init too.
func TestStreamsThatDoNotBlock(t *testing.T) {
	b := newBench(t)
	var pair [2]int
	if err := unix.Pipe2(pair[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	in := os.NewFile(uintptr(pair[0]), "in")
	defer in.Close()
	defer unix.Close(pair[1])
	for range 10 {
		spec := shellSpec("echo done")
		// Longer than the Go runtime goes without a look at what it waits for.
		spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 0.03"}, Env: []string{"PATH=/bin"}}}}
		if out, _ := b.run(spec, func(o *CreateOptions) { o.Stdin = in }); out != "done" {
			t.Errorf("%q", out)
		}
	}
}

// While a container is deleted its id is taken, also when its record is gone already.
func TestCreateBesideDelete(t *testing.T) {
	b := newBench(t)
	spec := shellSpec("true")
	id := fmt.Sprintf("beside-%d", os.Getpid())
	spec.Linux.CgroupsPath = testCgroup(id)
	stop := make(chan struct{})
	var deletes sync.WaitGroup
	deletes.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if c, err := b.Load(id); err == nil {
				if err := c.Delete(t.Context(), true); err != nil && !fault.Is(err, fault.NotFound) {
					t.Error(err)
				}
			}
		}
	})
	for range 60 {
		c, err := b.Create(t.Context(), id, CreateOptions{Bundle: b.bundle, Spec: spec, ClampDefaults: true})
		if err == nil {
			linux.Wait(c.PidFD()) //nolint:errcheck // it is killed
			_ = c.Close()
		} // else the id was taken, or it was deleted while it was made
	}
	close(stop)
	deletes.Wait()
	if c, err := b.Load(id); err == nil {
		if err := c.Delete(t.Context(), true); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(b.options.Root); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
