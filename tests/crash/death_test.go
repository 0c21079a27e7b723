package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sampan-project/sampan/tests/scenario"
)

// The processes beside the daemon die as well: the drivers, and the monitor.

// offspring returns the processes whose program has a name and whose parent is one.
func offspring(t *testing.T, parent int, program string) (pids []int) {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		rest := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		exe, _ := os.Readlink(filepath.Join(filepath.Dir(path), "exe"))
		if rest[1] != strconv.Itoa(parent) || filepath.Base(exe) != program {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// killDriver kills the process of the bridge driver and returns its id.
func (b *bench) killDriver() int {
	b.t.Helper()
	pids := offspring(b.t, b.Pid(), "sampan-network-bridge")
	if len(pids) != 1 {
		b.t.Fatalf("the daemon has the driver processes %v, expected one", pids)
	}
	b.check(syscall.Kill(pids[0], syscall.SIGKILL))
	return pids[0]
}

// delays are how many milliseconds after the command the driver is killed: at its begin and in the middle of
// what the driver is asked for; with SAMPAN_CRASH_ALL at every millisecond until it is over.
func delays() []int {
	if os.Getenv("SAMPAN_CRASH_ALL") == "" {
		return []int{0, 4}
	}
	var all []int
	for n := range 31 {
		all = append(all, n)
	}
	return all
}

// A driver's process that dies is started anew, told everything, and loses nothing; what was asked of
// the dead one fails or comes to pass, and leaves nothing either way.
func TestDriverDies(t *testing.T) {
	b := &bench{Daemon: scenario.Alone(t, ""), t: t, dir: t.TempDir()}
	b.prepare()
	again := cmds(sampan("?network", "create", "net"), sh("it", "--network", "net", "-p", "127.0.0.1::80"), sampan("exec", "it", "ip", "address", "show", "eth0"))
	after := cmds(removeIt, sampan("network", "rm", "net"))
	for _, o := range []operation{
		{name: "idle", do: sampan("ps")},
		{name: "create", do: sampan("network", "create", "net")},
		{name: "start", before: cmds(sampan("create", "--name", "it", "-p", "127.0.0.1::80", "busybox", "sleep", "1000")), do: sampan("start", "it")},
		{name: "connect", before: cmds(sampan("network", "create", "net"), sh("it")), do: sampan("network", "connect", "net", "it")},
		{name: "connect_gateway", before: cmds(sampan("network", "create", "--internal", "net"), sh("it", "--network", "net", "-p", "127.0.0.1::80")), do: sampan("network", "connect", "bridge", "it")},
		{name: "disconnect", before: cmds(sampan("network", "create", "net"), sh("it", "--network", "net")), do: sampan("network", "disconnect", "net", "it")},
		{name: "disconnect_gateway", before: cmds(sampan("network", "create", "net"), sh("it", "-p", "127.0.0.1::80"), sampan("network", "connect", "net", "it")), do: sampan("network", "disconnect", "bridge", "it")},
		{name: "delete", before: cmds(sampan("network", "create", "net")), do: sampan("network", "rm", "net")},
		{name: "stop", before: cmds(sh("it", "-p", "127.0.0.1::80")), do: sampan("stop", "-t", "0", "it")},
		{name: "remove", before: cmds(sh("it", "-p", "127.0.0.1::80")), do: sampan("rm", "-f", "it")},
	} {
		t.Run(o.name, func(t *testing.T) {
			b.t = t
			defer b.tidy(operation{after: after})
			for _, delay := range delays() {
				b.check(b.Kill()) // a daemon waits the longer, the more often a driver has died
				b.check(b.Start())
				at := fmt.Sprintf("the driver dies after %d ms", delay)
				b.all(at+": before", o.before)
				done := make(chan error, 1)
				go func() { _, err := b.sampan(nil, o.do...); done <- err }()
				time.Sleep(time.Duration(delay) * time.Millisecond)
				dead := b.killDriver()
				if err := <-done; err != nil && suspicious(err.Error()) != "" {
					t.Errorf("%s: %v", at, err)
				}
				b.check(scenario.Poll(func() error {
					if pids := offspring(t, b.Pid(), "sampan-network-bridge"); len(pids) != 1 || slices.Contains(pids, dead) {
						return fmt.Errorf("%s: driver processes %v after %d", at, pids, dead)
					}
					return nil
				}))
				b.alive(at)
				b.consistent(at)
				b.all(at+": remove", cmds(removeIt))
				b.all(at+": again", again)
				b.all(at+": after", after)
				b.settled(at)
			}
		})
	}
	b.t = t
	b.logsWhole()
}

// When the monitor is killed, containers go on and the next monitor adopts them: they are seen, reached,
// stopped and removed, and new ones are made. Only what they write is lost.
func TestMonitorDies(t *testing.T) {
	for _, test := range []struct {
		name string
		both bool
	}{{"the monitor alone", false}, {"monitor and daemon", true}} {
		t.Run(test.name, func(t *testing.T) {
			b := &bench{Daemon: scenario.Alone(t, ""), t: t, dir: t.TempDir()}
			b.prepare()
			monitor, err := strconv.Atoi(b.monitor())
			b.check(err)
			b.check(syscall.Kill(monitor, syscall.SIGKILL))
			if test.both {
				b.check(b.Kill())
				b.check(b.Start())
			}
			b.check(scenario.Poll(func() error { _, err := b.sampan(nil, "exec", "keeper", "true"); return err }))
			b.alive("the monitor was killed")
			b.consistent("the monitor was killed")
			for range 2 {
				b.must(sh("it", "-p", "127.0.0.1::80")...)
				b.must("exec", "it", "true")
				b.must("rm", "-f", "it")
			}
			b.must("pause", "keeper")
			b.must("unpause", "keeper")
			b.must("stop", "-t", "0", "keeper")
			b.must("start", "keeper")
			b.keeper = b.must("inspect", "-f", "{{.State.Pid}}", "keeper")
			b.alive("it was started again")
			b.settled("everything was removed")
			b.consistent("everything was removed")
		})
	}
}
