package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sampan-project/sampan/tests/scenario"
)

const (
	clients = 16
	// shortSoak is how long the clients go on in `make test`; SAMPAN_SOAK_TIME says it otherwise.
	shortSoak = 15 * time.Second
)

// storm is a daemon with many clients, which is killed now and then.
type storm struct {
	*bench
	up     sync.RWMutex // held for writing while no daemon runs: an operation that begins finds one
	killed atomic.Int64 // daemons so far
	done   atomic.Int64 // operations that succeeded
	failed atomic.Int64 // operations that were refused, or cut off with the daemon
}

// TestStorm has clients do at random what they like while the daemon is killed. At the end everything
// is consistent, and what they had can be removed to the last.
func TestStorm(t *testing.T) {
	long := duration(t, "SAMPAN_SOAK_TIME", shortSoak)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &storm{bench: &bench{Daemon: scenario.Alone(t, ""), t: t, dir: t.TempDir()}}
	s.prepare()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	var running sync.WaitGroup
	for n := range clients {
		running.Go(func() { s.client(ctx, n, rand.New(rand.NewPCG(seed, uint64(n)))) })
	}
	s.killNowAndThen(ctx, rand.New(rand.NewPCG(seed, clients)))
	running.Wait()
	t.Logf("%d operations, %d refused or cut off, %d daemons killed", s.done.Load(), s.failed.Load(), s.killed.Load())
	if t.Failed() {
		return
	}
	if s.done.Load() < clients {
		t.Fatalf("only %d operations succeeded", s.done.Load())
	}
	s.alive("at the end")
	s.consistent("at the end")
	s.clear()
	s.settled("when everything was removed")
	s.consistent("when everything was removed")
	s.logsWhole()
}

func duration(t *testing.T, variable string, otherwise time.Duration) time.Duration {
	t.Helper()
	given := os.Getenv(variable)
	if given == "" {
		return otherwise
	}
	d, err := time.ParseDuration(given)
	if err != nil || d <= 0 {
		t.Fatalf("%s=%q: expected a duration such as 1h", variable, given)
	}
	return d
}

// killNowAndThen kills the daemon and starts it again until ctx ends.
func (s *storm) killNowAndThen(ctx context.Context, random *rand.Rand) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second + time.Duration(random.Int64N(int64(3*time.Second)))):
		}
		if s.t.Failed() {
			return
		}
		if err := s.Kill(); err != nil { // in the middle of whatever they do
			s.t.Errorf("the daemon ended by itself: %v\n%s", err, s.Log())
			return
		}
		s.up.Lock()
		err := s.Start()
		s.up.Unlock()
		if err != nil {
			s.t.Errorf("start again: %v", err)
			return
		}
		s.killed.Add(1)
	}
}

// client does one thing after the other. Names are of few, so that it meets what it has made before,
// and of this client, so that a refusal is one of the engine's and not of somebody else's haste.
func (s *storm) client(ctx context.Context, n int, random *rand.Rand) {
	for ctx.Err() == nil && !s.t.Failed() {
		args := choose(n, random)
		s.up.RLock()
		s.up.RUnlock() //nolint:staticcheck // the wait for a daemon is all that is wanted
		out, err := s.sampan(nil, args...)
		if err == nil {
			s.done.Add(1)
			continue
		}
		s.failed.Add(1)
		if wrong := suspicious(out); wrong != "" {
			s.t.Errorf("sampan %s: %s", strings.Join(args, " "), wrong)
		}
	}
}

// choose returns what a client does next.
func choose(n int, random *rand.Rand) []string {
	it := fmt.Sprintf("c%d-%d", n, random.IntN(2))
	net, vol, img := fmt.Sprintf("n%d", n), fmt.Sprintf("v%d", n), fmt.Sprintf("i%d", n)
	all := [][]string{
		{"run", "-d", "--name", it, "-v", vol + ":/data", "-v", "/anonymous", "busybox", "sleep", "1000"},
		{"run", "-d", "--name", it, "--restart", "always", "busybox", "sleep", "0.3"},
		{"run", "-d", "--name", it, "--network", net, "busybox", "sleep", "1000"},
		{"run", "--rm", "busybox", "true"},
		{"create", "--name", it, "busybox", "sleep", "1000"},
		{"start", it}, {"stop", "-t", "0", it}, {"restart", "-t", "0", it}, {"kill", it}, {"pause", it}, {"unpause", it},
		{"rm", "-f", "-v", it}, {"rm", "-f", "-v", it}, {"rm", "-f", it},
		{"exec", it, "true"}, {"logs", it}, {"commit", it, img}, {"cp", "pid", it + ":/copied"},
		{"rmi", "-f", img}, {"tag", "busybox", img}, {"run", "--rm", img, "true"},
		{"volume", "create", vol}, {"volume", "rm", vol},
		{"network", "create", net}, {"network", "rm", net}, {"network", "connect", net, it}, {"network", "disconnect", net, it},
		{"ps", "-a"}, {"inspect", it}, {"update", "--memory", "64m", "--memory-swap", "64m", it},
	}
	return all[random.IntN(len(all))]
}

// suspicious returns what of a refusal tells of trouble in the engine, and not of a wish that cannot be
// fulfilled now.
func suspicious(out string) string {
	for line := range strings.Lines(out) {
		for _, sign := range []string{"panic", "runtime error", "input/output error", "resource busy", "too many open files", "database", "context deadline exceeded"} {
			if strings.Contains(line, sign) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}

// clear removes what the clients have made.
func (s *storm) clear() {
	s.t.Helper()
	for n := range clients {
		s.must("rm", "-f", "-v", fmt.Sprintf("c%d-0", n), fmt.Sprintf("c%d-1", n))
	}
	// Those of `run` without a name remove themselves.
	err := scenario.Poll(func() error {
		if names := s.must("ps", "-a", "--format", "{{.Names}}"); names != "keeper" {
			return fmt.Errorf("there are still containers: %s", names)
		}
		return nil
	})
	s.check(err)
	for n := range clients {
		_, _ = s.sampan(nil, "rmi", "-f", fmt.Sprintf("i%d", n)) // it may not be there
	}
	s.must("image", "prune", "-f")
	s.must("network", "prune", "-f")
	s.must("volume", "prune", "-a", "-f")
}

// TestNoGrowth does many operations and looks whether the daemon and the monitor have more descriptors
// or goroutines than before. SAMPAN_SOAK_OPERATIONS says how many.
func TestNoGrowth(t *testing.T) {
	operations := 160
	if given := os.Getenv("SAMPAN_SOAK_OPERATIONS"); given != "" {
		if _, err := fmt.Sscan(given, &operations); err != nil || operations < 1 {
			t.Fatalf("SAMPAN_SOAK_OPERATIONS=%q: expected a number", given)
		}
	}
	b := &bench{Daemon: scenario.Alone(t, ""), t: t, dir: t.TempDir()}
	b.prepare()
	round := func() {
		b.must("run", "-d", "--name", "it", "-p", "127.0.0.1::80", "-v", "/anonymous", "busybox", "sleep", "1000")
		b.must("exec", "it", "true")
		b.must("logs", "it")
		b.must("cp", "pid", "it:/copied")
		b.must("restart", "-t", "0", "it")
		b.must("rm", "-f", "-v", "it")
		b.must("run", "--rm", "busybox", "true")
		if _, err := b.sampan(nil, "run", "--rm", "busybox", "nothing"); err == nil {
			t.Fatal("a command that is not there was run")
		}
	}
	const perRound, warm, slack = 8, 3, 6
	for range warm {
		round()
	}
	time.Sleep(lull)
	before := b.census()
	for range operations / perRound {
		round()
	}
	err := scenario.Poll(func() error {
		now := b.census()
		for what, n := range now {
			// A pool that is being filled, or a connection that is just being closed, is no growth.
			if n > before[what]+slack {
				return fmt.Errorf("%s: %d before, %d after %d operations", what, before[what], n, operations)
			}
		}
		return nil
	})
	b.check(err)
}

// census counts the descriptors of the daemon and the monitor, and the daemon's goroutines.
func (b *bench) census() map[string]int {
	b.t.Helper()
	count := map[string]int{}
	for name, pid := range map[string]string{"daemon": fmt.Sprint(b.Pid()), "monitor": b.monitor()} {
		open, err := os.ReadDir(filepath.Join("/proc", pid, "fd"))
		b.check(err)
		count["descriptors of the "+name] = len(open)
	}
	var routines int
	_, err := fmt.Sscan(b.must("info", "--format", "{{.NGoroutines}}"), &routines)
	b.check(err)
	count["goroutines of the daemon"] = routines
	return count
}

// monitor returns the process that is the parent of the containers.
func (b *bench) monitor() string {
	b.t.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", b.keeper, "stat"))
	b.check(err)
	rest := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
	return strings.Fields(rest)[1] // ppid, see proc_pid_stat(5)
}
