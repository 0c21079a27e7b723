package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
)

// asSpy makes the test's own program the one that spies.
const asSpy = "SAMPAN_TEST_SPY"

// marker lies at the same place in the memory of the test, which calls exec, of the init, which is the same program,
// and of the spy, which knows the place by that.
var marker = []byte("this is in the memory of the runtime alone")

// spy tries to read the memory of every process that comes into being in its pid namespace. It says "saw" the first
// time that it is refused one, and "read" with the number of the first one whose memory it can read.
func spy() {
	runtime.GOMAXPROCS(1)
	found := make([]byte, len(marker))
	saw, told, last := false, false, os.Getpid()
	fmt.Println("ready")
	for {
		for pid := last + 1; pid < last+30; pid++ {
			local := []unix.Iovec{{Base: &found[0], Len: uint64(len(found))}}
			remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&marker[0])), Len: len(found)}}
			n, err := unix.ProcessVMReadv(pid, local, remote, 0)
			switch {
			case errors.Is(err, unix.EPERM) && !saw:
				saw = true
				fmt.Println("saw one")
			case err == nil && n == len(found) && bytes.Equal(found, marker) && !told:
				if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", pid)); err != nil {
					told = true
					fmt.Println("read", pid)
				}
			case errors.Is(err, unix.ESRCH):
				continue
			}
			// It has been. Numbers are given in turn.
			if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) {
				last = pid
			}
		}
	}
}

// A process of exec is in the container's pid namespace from its birth on, and has the caller's memory until it
// executes the init, which then has every right there is in the user namespace. Who may trace processes in there reads
// and writes neither.
func TestExecKeepsItsMemory(t *testing.T) {
	b := newBench(t)
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.bundle, "rootfs/bin/spy"), program, 0o755); err != nil { // #nosec G306 -- a program
		t.Fatal(err)
	}
	spec := rootSpec("")
	b.mapped(spec)
	spec.Process.Args, spec.Process.Env = []string{"spy"}, append(spec.Process.Env, asSpy+"=1")
	c := spec.Process.Capabilities
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
		*set = append([]string{"CAP_SYS_PTRACE"}, *set...)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	container, _, err := b.create(spec, func(o *CreateOptions) { o.Stdout = w })
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := container.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		p, err := container.Exec(t.Context(), ExecOptions{Process: &specs.Process{Args: []string{"true"}, Env: []string{"PATH=/bin"}, Cwd: "/"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := linux.Wait(p.PidFD()); err != nil {
			t.Error(err)
		}
		p.PidFD().Close()
	}
	if err := container.Kill(unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil || !strings.Contains(string(out), "saw") || strings.Contains(string(out), "read") {
		t.Errorf("the spy says %q, %v; expected that it saw processes and read none", out, err)
	}
}
