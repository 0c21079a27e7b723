// Package crash kills the daemon at every point of what users do (core/crash), starts it again, and
// looks whether containers run on, nothing is lost and nothing is left.
//
// A short run takes some of the points, others on each day; SAMPAN_CRASH_ALL takes all of them
// (`make crash`), and SAMPAN_CRASH_SEED the sample of another day.
package crash

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sampan-project/sampan/tests/scenario"
)

// sample is how many points of each operation a short run takes.
const sample = 1

// bench is a daemon of the fault-injection build with containers that must live through everything.
type bench struct {
	*scenario.Daemon
	t      *testing.T
	dir    string // of core/crash
	keeper string // pid of the container that must go on
	base   string // what there is between operations
}

func TestKilledAtEveryPoint(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SAMPAN_CRASH", dir)
	b := &bench{Daemon: scenario.Alone(t, programs(t)), t: t, dir: dir}
	b.prepare()
	seed := uint64(time.Now().Unix() / 86400)
	if s := os.Getenv("SAMPAN_CRASH_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("SAMPAN_CRASH_SEED=%q: expected a number", s)
		}
	}
	t.Logf("SAMPAN_CRASH_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, o := range slices.Concat(operations, transfers(b.serve(t))) {
		ok := t.Run(o.name, func(t *testing.T) {
			b.t = t
			defer b.tidy(o)
			points := b.record(o)
			numbers := random.Perm(len(points))
			if os.Getenv("SAMPAN_CRASH_ALL") == "" {
				numbers = numbers[:min(sample, len(numbers))]
			}
			slices.Sort(numbers)
			for _, n := range numbers {
				b.killAt(o, n+1)
			}
		})
		if !ok && os.Getenv("KEEP") != "" {
			t.Fatalf("the daemon's root is %s\n%s", b.Root, b.Log())
		}
	}
	b.t = t
	b.logsWhole()
}

// programs returns a directory with the daemon of the fault-injection build among the usual programs.
func programs(t *testing.T) string {
	t.Helper()
	usual, dir := scenario.Programs(t), t.TempDir()
	for _, name := range []string{"sampan", "sampan-runtime", "plugins"} {
		if err := os.Symlink(filepath.Join(usual, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-tags", "crashpoints", "-o", dir, "github.com/sampan-project/sampan/cmd/sampand")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build sampand: %v\n%s", err, out)
	}
	return dir
}

func (b *bench) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// prepare starts the daemon and what must live through everything: a container on a network of its
// own, with a volume, that writes numbers.
func (b *bench) prepare() {
	b.check(b.Start())
	b.check(b.Busybox())
	image, err := scenario.BusyboxRootfs()
	b.check(err)
	b.check(os.WriteFile(filepath.Join(b.Root, "rootfs.tar"), image, 0o600))
	b.must("run", "--name", "source", "busybox", "touch", "/loaded")
	b.must("commit", "source", "loaded")
	b.must("rm", "source")
	b.must("save", "-o", "image.tar", "loaded")
	b.must("rmi", "loaded")
	b.must("network", "create", "kept")
	b.must("run", "-d", "--name", "keeper", "--network", "kept", "-v", "kept:/kept", "-l", "kept=yes", "busybox", "sh", "-c",
		`echo data >/kept/file; n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done`)
	b.keeper = b.must("inspect", "-f", "{{.State.Pid}}", "keeper")
	b.base = b.inventory()
}

// sampan runs the client.
func (b *bench) sampan(stdin io.Reader, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	cmd := b.Command(ctx, args...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("sampan %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (b *bench) must(args ...string) string {
	b.t.Helper()
	out, err := b.sampan(nil, args...)
	b.check(err)
	return out
}

// all runs the commands of an operation.
func (b *bench) all(what string, list [][]string) {
	b.t.Helper()
	for _, args := range list {
		name, mayFail := strings.CutPrefix(args[0], "?")
		args = append([]string{name}, args[1:]...)
		if _, err := b.sampan(nil, args...); err != nil && !mayFail {
			b.t.Fatalf("%s: %v", what, err)
		}
	}
}

// arm has the daemon count its points from now on, and die at the one of that number.
func (b *bench) arm(n int) {
	b.t.Helper()
	if err := os.Remove(filepath.Join(b.dir, "trace")); err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	tmp := filepath.Join(b.dir, "arm.new")
	b.check(os.WriteFile(tmp, []byte(strconv.Itoa(n)), 0o600))
	b.check(os.Rename(tmp, filepath.Join(b.dir, "arm")))
}

// disarm ends the counting and returns the points that were reached.
func (b *bench) disarm() []string {
	b.t.Helper()
	b.check(os.Remove(filepath.Join(b.dir, "arm")))
	return b.trace()
}

func (b *bench) trace() []string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, "trace"))
	if os.IsNotExist(err) {
		return nil
	}
	b.check(err)
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// do does the operation with the daemon armed.
func (b *bench) do(o operation, n int) error {
	b.t.Helper()
	if o.start {
		b.check(b.Kill())
		b.arm(n)
		return b.Start()
	}
	var in io.Reader
	if o.stdin != "" {
		f, err := os.Open(filepath.Join(b.Root, o.stdin))
		b.check(err)
		defer f.Close()
		in = f
	}
	b.arm(n)
	_, err := b.sampan(in, o.do...)
	return err
}

// lull is how long the daemon has for what it does after its answer; states of containers are flushed
// after half a second.
const lull = 700 * time.Millisecond

// tidy takes away what an operation that failed has left, so that the next one is judged by itself.
func (b *bench) tidy(o operation) {
	if !b.t.Failed() {
		return
	}
	if _, err := os.Stat(filepath.Join(b.dir, "arm")); err == nil {
		b.disarm()
	}
	if b.Lost() {
		b.check(b.Start())
	}
	for _, args := range o.after {
		if out, err := b.sampan(nil, args...); err != nil {
			b.t.Log(out)
		}
	}
	time.Sleep(lull)
	b.base = b.inventory()
}

// record does the operation once to its end and returns the points on the way.
func (b *bench) record(o operation) []string {
	b.t.Helper()
	b.all("before", o.before)
	b.check(b.do(o, 0))
	time.Sleep(lull)
	points := b.disarm()
	b.all("again", o.again)
	b.all("after", o.after)
	b.settled(o.name)
	return points
}

// killAt does the operation, is witness to the daemon's death at its nth point, and looks at what the
// next daemon makes of it.
func (b *bench) killAt(o operation, n int) {
	b.t.Helper()
	b.all("before", o.before)
	time.Sleep(lull / 10) // what the commands before left to do in the background
	if err := b.do(o, n); err != nil && len(b.trace()) < n {
		b.t.Fatalf("%s: %v", o.name, err)
	}
	for end := time.Now().Add(lull); !b.Lost() && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	points := b.disarm()
	at := fmt.Sprintf("killed at point %d", n)
	if len(points) == n {
		at += ", " + points[n-1]
	}
	if !b.Lost() { // this time it took fewer points: it is killed all the same
		b.check(b.Kill())
	}
	if err := b.Start(); err != nil {
		b.t.Fatalf("%s: start again: %v", at, err)
	}
	b.alive(at)
	b.consistent(at)
	b.all(at+": again", o.again)
	b.all(at+": after", o.after)
	b.settled(at)
}

// alive looks whether the container that must live through everything does.
func (b *bench) alive(at string) {
	b.t.Helper()
	if now := b.must("inspect", "-f", "{{.State.Pid}}", "keeper"); now != b.keeper {
		b.t.Fatalf("%s: the container that ran has process %s, it had %s", at, now, b.keeper)
	}
	if out := b.must("exec", "keeper", "sh", "-c", "cat /kept/file && ip address show eth0 | grep -c inet"); !strings.HasPrefix(out, "data\n1") {
		b.t.Fatalf("%s: the container that ran has lost its volume or its network: %s", at, out)
	}
}

// consistent asks the daemon itself.
func (b *bench) consistent(at string) {
	b.t.Helper()
	if err := scenario.Poll(func() error { _, err := b.sampan(nil, "system", "check"); return err }); err != nil {
		b.t.Fatalf("%s: %v", at, err)
	}
}

// settled waits until there is what was there before all operations.
func (b *bench) settled(at string) {
	b.t.Helper()
	err := scenario.Poll(func() error {
		if now := b.inventory(); now != b.base {
			return fmt.Errorf("%s: expected what was there before:\n%s\nnow there is:\n%s\n%s", at, b.base, now, b.Log())
		}
		return nil
	})
	b.check(err)
}

// inventory is what the daemon and its directories have.
func (b *bench) inventory() string {
	b.t.Helper()
	var lines []string
	for _, args := range [][]string{
		{"ps", "-a", "--format", "container {{.Names}} {{.State}}"}, {"volume", "ls", "--format", "volume {{.Name}}"},
		{"network", "ls", "--format", "network {{.Name}}"}, {"images", "-a", "--format", "image {{.Repository}}"},
	} {
		lines = append(lines, b.must(args...))
	}
	for _, pattern := range []string{
		"data/overlay2/*", "data/overlay2/l/*", "data/overlay2/tmp/*", "data/images/blobs/sha256/*", "data/images/ingest/*",
		"data/containers/*", "data/volumes/*", "data/volumes/.[a-z]*", "data/tmp/*", "data/build/*/*",
		"run/build/*", "run/monitor/exits/*", "run/monitor/runtime/*", "run/plugins/*",
	} {
		paths, err := filepath.Glob(filepath.Join(b.Root, pattern))
		b.check(err)
		lines = append(lines, fmt.Sprintf("%s: %d", pattern, len(paths)))
	}
	return strings.Join(lines, "\n")
}

// logsWhole looks whether the log has every number that the container wrote.
func (b *bench) logsWhole() {
	b.t.Helper()
	for i, line := range strings.Split(b.must("logs", "keeper"), "\n") {
		if line != strconv.Itoa(i+1) {
			b.t.Fatalf("line %d of the log is %q: lines were lost", i+1, line)
		}
	}
}
