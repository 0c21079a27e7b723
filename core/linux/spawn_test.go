package linux

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux/raw"
)

// shell is a static shell, so that no library is looked up in a namespace.
func shell(t testing.TB) *os.File {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// run starts a shell script with s and returns its output and status.
func run(t *testing.T, s Spawn, script string) (string, unix.WaitStatus) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	s.Program, s.Args, s.Env = shell(t), []string{"sh", "-c", script}, []string{"PATH=/bin:/usr/bin:/sbin"}
	s.Files = append([]*os.File{null, w, w}, s.Files...)
	child, err := s.Start()
	w.Close()
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	defer child.PidFD.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	status, err := Wait(child.PidFD)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), status
}

// owned are flags of namespaces, which an ordinary user makes in a user namespace alone.
func owned(flags uint64) uint64 {
	if os.Geteuid() != 0 {
		flags |= unix.CLONE_NEWUSER
	}
	return flags
}

func TestSpawnMakesNamespaces(t *testing.T) {
	s := Spawn{Flags: owned(unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWNS)}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		s.Root, s.Prepare = true, func(pid int) error {
			return WriteMappings(pid, []IDMapping{{0, uint32(uid), 1}}, []IDMapping{{0, uint32(gid), 1}})
		}
	}
	out, status := run(t, s, "echo $$; hostname inside; hostname; exit 7")
	if out != "1\ninside" || status.ExitStatus() != 7 {
		t.Errorf("got %q, status %d; want pid 1, hostname inside, status 7", out, status.ExitStatus())
	}
	if name, _ := os.Hostname(); name == "inside" {
		t.Error("the caller's hostname was changed")
	}
}

func TestSpawnPassesFilesInOrderAndNoOther(t *testing.T) {
	a, err := os.CreateTemp(t.TempDir(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := os.CreateTemp(t.TempDir(), "b")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	out, _ := run(t, Spawn{Files: []*os.File{b, a, b}}, "cd /proc/self/fd; for i in 3 4 5; do readlink $i; done; exec ls /proc/self/fd")
	// ls itself has its directory open: 0 to 5 and one more.
	want := fmt.Sprintf("%s\n%s\n%s\n0\n1\n2\n3\n4\n5\n6", b.Name(), a.Name(), b.Name())
	if out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestSpawnJoinsAndForks(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	outer := Spawn{Program: shell(t), Args: []string{"cat"}, Files: []*os.File{r, w, w}, Flags: owned(unix.CLONE_NEWPID | unix.CLONE_NEWIPC)}
	child, err := outer.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		Signal(child.PidFD, unix.SIGKILL) //nolint:errcheck // the test is over
		Wait(child.PidFD)                 //nolint:errcheck // the test is over
		child.PidFD.Close()
	}()
	join := Join{child.PidFD, int(owned(unix.CLONE_NEWPID | unix.CLONE_NEWIPC))}
	out, status := run(t, Spawn{Join: []Join{join}, Fork: true, Flags: unix.CLONE_NEWUTS}, "echo $$; readlink /proc/self/ns/ipc; exit 3")
	ipc, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/ipc", child.Pid))
	if out != "2\n"+ipc || status.ExitStatus() != 3 {
		t.Errorf("got %q status %d, want pid 2 in %s and status 3", out, status.ExitStatus(), ipc)
	}
}

// needUserNamespaces skips in a chroot, where the kernel makes none (user_namespaces(7), EPERM): that
// is where the root of the mount namespace is another directory than ours.
func needUserNamespaces(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return // who cannot look out of a chroot is in none
	}
	ours, err := os.Stat("/")
	if err != nil {
		t.Fatal(err)
	}
	var top os.FileInfo
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its other root
		self, err := PidFD(os.Getpid())
		if err == nil {
			err = unix.Unshare(unix.CLONE_FS)
		}
		if err == nil {
			err = unix.Setns(int(self.Fd()), unix.CLONE_NEWNS)
		}
		if err == nil {
			top, err = os.Stat("/")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(ours, top) {
		t.Skip("the kernel makes no user namespace for a process in a chroot")
	}
}

func TestSpawnWaitsForPrepare(t *testing.T) {
	needUserNamespaces(t)
	outside := uint32(1000)
	if id := os.Geteuid(); id != 0 {
		outside = uint32(id) // no other may be
	}
	prepare := func(pid int) error {
		return WriteMappings(pid, []IDMapping{{0, outside, 1}}, []IDMapping{{0, outside, 1}})
	}
	out, _ := run(t, Spawn{Flags: unix.CLONE_NEWUSER, Prepare: prepare, Root: true}, "id -u; cat /proc/self/uid_map")
	if got := strings.Fields(out); len(got) != 4 || got[0] != "0" || got[2] != fmt.Sprint(outside) {
		t.Errorf("got %q, want user 0 mapped to %d", out, outside)
	}
}

// The child is placed before its cgroup namespace is made, which begins where it then is, and before it
// clones itself once more.
func TestSpawnWaitsForPlace(t *testing.T) {
	namespace := func(pid string) string {
		link, err := os.Readlink("/proc/" + pid + "/ns/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	ours := namespace("self")
	// An ordinary user sees namespaces of dumpable processes alone, and a test before may have taken that away (conceal).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	for _, fork := range []bool{false, true} {
		placed, prepared := 0, 0
		place := func(pid int) error {
			placed = pid
			if got := namespace(strconv.Itoa(pid)); got != ours || prepared != 0 {
				t.Errorf("fork %v: placed in %s, expected %s, before all else", fork, got, ours)
			}
			return nil
		}
		prepare := func(pid int) error { prepared = pid; return nil }
		out, _ := run(t, Spawn{Flags: owned(unix.CLONE_NEWPID), Unshare: unix.CLONE_NEWCGROUP, Fork: fork, Place: place, Prepare: prepare}, "readlink /proc/self/ns/cgroup")
		if strings.TrimSpace(out) == ours || placed == 0 || prepared == 0 || (placed != prepared) != fork {
			t.Errorf("fork %v: placed %d, prepared %d, namespace %s", fork, placed, prepared, out)
		}
	}
}

func TestSpawnReportsWhatFailed(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	files := []*os.File{null, null, null}
	failing := errors.New("no mapping")
	for _, c := range []struct {
		name  string
		spawn Spawn
		want  error
		text  string
	}{
		{"joining what is no namespace", Spawn{Program: shell(t), Join: []Join{{null, unix.CLONE_NEWNET}}}, unix.EINVAL, "setns " + os.DevNull},
		{"executing what is no program", Spawn{Program: null}, unix.EACCES, "execveat"},
		{"preparing", Spawn{Program: shell(t), Flags: unix.CLONE_NEWUSER, Prepare: func(int) error { return failing }}, failing, ""},
		{"placing", Spawn{Program: shell(t), Place: func(int) error { return failing }}, failing, ""},
		{"placing before the second clone", Spawn{Program: shell(t), Fork: true, Place: func(int) error { return failing }}, failing, ""},
		{"being killed before the second clone", Spawn{Program: shell(t), Fork: true, Place: func(pid int) error { return unix.Kill(pid, unix.SIGKILL) }}, unix.ESRCH, "killed"},
		{"joining after placing", Spawn{Program: shell(t), Place: func(int) error { return nil }, Join: []Join{{null, unix.CLONE_NEWNET}}}, unix.EINVAL, "setns " + os.DevNull},
		{"executing after preparing", Spawn{Program: null, Prepare: func(int) error { return nil }}, unix.EACCES, "execveat"},
		{"executing after the second clone", Spawn{Program: null, Fork: true}, unix.EACCES, "execveat"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.spawn.Flags&unix.CLONE_NEWUSER != 0 {
				needUserNamespaces(t)
			}
			c.spawn.Files, c.spawn.Args = files, []string{"true"}
			_, err := c.spawn.Start()
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
			if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
				t.Errorf("a child was left: %v", err)
			}
		})
	}
}

func TestSpawnRestoresTheLimitOfFiles(t *testing.T) {
	got, _ := run(t, Spawn{}, "ulimit -n")
	if want := strconv.FormatUint(raw.NofileSoft, 10); got != want {
		t.Errorf("the child's limit of open files is %s, want %s", got, want)
	}
}

func BenchmarkSpawn(b *testing.B) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	s := Spawn{Program: shell(b), Args: []string{"true"}, Files: []*os.File{null, null, null}}
	for b.Loop() {
		child, err := s.Start()
		if err != nil {
			b.Fatal(err)
		}
		Wait(child.PidFD) //nolint:errcheck // measured
		child.PidFD.Close()
	}
}

// A child that waits for its caller ends when that is killed.
func TestSpawnCallerIsKilled(t *testing.T) {
	const asCaller = "SAMPAN_TEST_KILLED_CALLER"
	if os.Getenv(asCaller) != "" {
		dies := func(pid int) error {
			fmt.Printf("child %d\n", pid)
			return unix.Kill(os.Getpid(), unix.SIGKILL)
		}
		run(t, Spawn{Flags: unix.CLONE_NEWUSER, Prepare: dies}, "sleep 100")
		return
	}
	caller := exec.Command(os.Args[0], "-test.run=^TestSpawnCallerIsKilled$")
	caller.Env = append(os.Environ(), asCaller+"=1")
	caller.WaitDelay = time.Second // the child has its output too
	out, err := caller.Output()
	var pid int
	if _, serr := fmt.Sscanf(string(out), "child %d", &pid); serr != nil {
		t.Fatalf("%q, %v", out, err)
	}
	child, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	ended := []unix.PollFd{{Fd: int32(child), Events: unix.POLLIN}}
	if n, err := RetryValue(func() (int, error) { return unix.Poll(ended, 10_000) }); n != 1 || err != nil {
		t.Errorf("process %d waits for ever: %d, %v", pid, n, err)
		unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it is left otherwise
	}
}
