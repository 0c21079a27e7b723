package runtime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// The first process is in every cgroup of the container before its cgroup namespace is made, whichever was there
// first: it or they.
func TestFirstProcessIsInItsCgroups(t *testing.T) {
	b := newBench(t)
	needCgroup(t)
	for name, limits := range map[string]*specs.LinuxResources{
		"no limit": nil,
		// On a hybrid host in the unified hierarchy.
		"huge pages": {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}},
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			spec := shellSpec("cat /proc/self/cgroup")
			spec.Linux.Resources = limits
			begun := 0
			c, output, err := b.create(spec, func(o *CreateOptions) { o.Begun = func() { begun++ } })
			if err != nil {
				t.Fatal(err)
			}
			if begun != 1 {
				t.Errorf("Begun was called %d times", begun)
			}
			dirs := c.cgroup.Paths()
			if len(dirs) == 0 {
				t.Fatal("the container has no cgroup")
			}
			pid := strconv.Itoa(c.Pid())
			for controller, dir := range dirs {
				procs, err := os.ReadFile(dir + "/cgroup.procs")
				if err != nil || strings.TrimSpace(string(procs)) != pid {
					t.Errorf("%q: processes %q, %v, expected %s", controller, procs, err, pid)
				}
				if tasks, err := os.ReadFile(dir + "/tasks"); err == nil && !slices.Contains(strings.Fields(string(tasks)), pid) {
					t.Errorf("%q: threads %q, expected %s among them", controller, tasks, pid)
				}
			}
			if ours, err := os.Readlink("/proc/self/ns/cgroup"); err != nil {
				t.Error(err)
			} else if its, err := os.Readlink("/proc/" + pid + "/ns/cgroup"); err != nil || its == ours {
				t.Errorf("cgroup namespace %s, %v, expected one of its own", its, err)
			}
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			out := output()
			if strings.Contains(out, spec.Linux.CgroupsPath) {
				t.Errorf("the container sees where it is: %s", out)
			}
			for controller := range dirs {
				if !strings.Contains("\n"+out+"\n", ":"+controller+":/\n") && !strings.Contains(out, controller+",") && !strings.Contains(out, ","+controller) {
					t.Errorf("the container sees %s, expected / of %q", out, controller)
				}
			}
		})
	}
}

// A cgroup that others are in is refused, though the first process may have been started by then.
func TestACgroupInUseIsRefused(t *testing.T) {
	needRoot(t, "a cgroup with another's process")
	b := newBench(t)
	name := testCgroup("occupied-" + strconv.Itoa(os.Getpid()))
	m, err := cgroup.New(name, nil, cgroup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	other := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		other.Process.Kill() //nolint:errcheck // it is ours
		other.Wait()         //nolint:errcheck // it was killed
		if err := m.Delete(); err != nil {
			t.Error(err)
		}
	})
	if err := m.Add(other.Process.Pid); err != nil {
		t.Fatal(err)
	}
	before := children(t)
	_, _, err = b.create(shellSpec("true"), func(o *CreateOptions) { o.Spec.Linux.CgroupsPath = name })
	if !fault.Is(err, fault.Conflict) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, expected one line of a conflict", err)
	}
	if left, err := os.ReadDir(b.options.Root); err != nil || len(left) > 0 {
		t.Errorf("%v is left in the state directory, %v", left, err)
	}
	if now := children(t); !slices.Equal(now, before) {
		t.Errorf("children %v, before %v", now, before)
	}
	if procs, err := m.Pids(); err != nil || !slices.Equal(procs, []int{other.Process.Pid}) {
		t.Errorf("processes %v, %v: expected the other's alone, unharmed", procs, err)
	}
}

// Two creations of one cgroup at the same time, as of one id below two roots: one has it whole, and the other is told.
func TestTwoCreationsOfOneCgroup(t *testing.T) {
	needRoot(t, "a cgroup for each")
	b := newBench(t)
	other := newBench(t)
	for i := range 20 {
		name := testCgroup(fmt.Sprintf("pair-%d-%d", os.Getpid(), i))
		made, errs := make([]*Container, 2), make([]error, 2)
		var group sync.WaitGroup
		for n, one := range []*bench{b, other} {
			group.Go(func() {
				spec := shellSpec("exec sleep 1000")
				spec.Linux.CgroupsPath = name
				made[n], errs[n] = one.Create(t.Context(), fmt.Sprintf("pair-%d-%d", os.Getpid(), i), CreateOptions{Bundle: one.bundle, Spec: spec, ClampDefaults: true})
			})
		}
		group.Wait()
		won := slices.IndexFunc(errs, func(err error) bool { return err == nil })
		if won < 0 {
			t.Fatalf("pair %d: both are refused: %v", i, errs)
		}
		if err := errs[1-won]; !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("pair %d: %v, expected one line of a conflict that names %s", i, err, name)
		}
		for _, c := range made {
			if c == nil {
				continue
			}
			if s := c.status(); s != specs.StateCreated {
				t.Errorf("pair %d: the container is %s", i, s)
			}
			for controller, dir := range c.cgroup.Paths() {
				if procs, err := os.ReadFile(dir + "/cgroup.procs"); err != nil || strings.TrimSpace(string(procs)) != strconv.Itoa(c.Pid()) {
					t.Errorf("pair %d, %s: processes %q, %v, expected %d", i, controller, procs, err, c.Pid())
				}
			}
			if len(c.cgroup.Paths()) == 0 {
				t.Errorf("pair %d: the container is in no cgroup", i)
			}
			err := c.Delete(t.Context(), true)
			linux.Wait(c.PidFD()) //nolint:errcheck // it is our child
			if err := errors.Join(err, c.Close()); err != nil {
				t.Error(err)
			}
		}
	}
	for _, one := range []*bench{b, other} {
		if left, err := os.ReadDir(one.options.Root); err != nil || len(left) > 0 {
			t.Errorf("%v is left in the state directory, %v", left, err)
		}
	}
}

// A container that has ended does not take the cgroup that another one has in its place with it.
func TestTheCgroupOfAnEndedContainerIsAnothers(t *testing.T) {
	needRoot(t, "a cgroup for each")
	b := newBench(t)
	name := testCgroup("twice-" + strconv.Itoa(os.Getpid()))
	path := func(o *CreateOptions) { o.Spec.Linux.CgroupsPath = name }
	first, _, err := b.create(shellSpec("true"), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := linux.Wait(first.PidFD()); err != nil {
		t.Fatal(err)
	}
	// The test's own handle knows it from the making, another one from the disk.
	loaded, err := b.Load(first.ID())
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := b.create(shellSpec("exec sleep 1000"), path)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]*Container{"made": first, "loaded": loaded} {
		m, err := c.cgroups()
		if err != nil {
			t.Fatal(err)
		}
		if pids, err := m.Pids(); err != nil || len(pids) > 0 {
			t.Errorf("%s: processes %v, %v; expected none", what, pids, err)
		}
		if err := c.Kill(unix.SIGKILL, true); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := loaded.Delete(t.Context(), true); err != nil {
		t.Error(err)
	}
	if s := second.status(); s != specs.StateCreated {
		t.Errorf("the second container is %s", s)
	}
	for controller, dir := range second.cgroup.Paths() {
		if procs, err := os.ReadFile(dir + "/cgroup.procs"); err != nil || strings.TrimSpace(string(procs)) != strconv.Itoa(second.Pid()) {
			t.Errorf("%s: processes %q, %v, expected %d", controller, procs, err, second.Pid())
		}
	}
	if len(second.cgroup.Paths()) == 0 {
		t.Error("the second container is in no cgroup")
	}
}

// children are the processes of which this one is the parent, the dead too.
func children(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(files) == 0 {
		t.Skip("this kernel does not list children")
	}
	var pids []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		pids = append(pids, strings.Fields(string(text))...)
	}
	slices.Sort(pids)
	return pids
}
