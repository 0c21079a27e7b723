package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/crash"
)

// asMember is the environment variable by which this test binary is one manager, in a process that can be killed.
const asMember = "STORE_TEST_MEMBER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asMember); dir != "" {
		if err := serve(dir, os.Stdin, os.Stdout); err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve does what the lines of in say, "VERB ARGUMENTS", and answers each with a line, "ok" or an error's.
func serve(dir string, in io.Reader, out io.Writer) error {
	addr := os.Getenv(asMember + "_ADDR")
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if err := crash.Arm(); err != nil {
		return err
	}
	s, err := Open(Options{
		Dir: dir, NodeID: filepath.Base(dir), Addr: addr, Layer: loopback{l}, Election: 400 * time.Millisecond,
		SnapshotEntries: 10, KeepEntries: 2, snapshotCheck: 100 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	ctx, deadline := contextOfProcess()
	defer deadline()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		words := strings.Fields(lines.Text())
		var err error
		answer := "ok"
		switch words[0] {
		case "bootstrap":
			err = s.Bootstrap(ctx)
		case "add":
			err = s.AddManager(ctx, words[1], words[2])
		case "put":
			err = s.Update(ctx, putNode(words[1]))
		case "snapshot":
			err = s.raft.Snapshot().Error()
		case "leads":
			err = s.Barrier(ctx)
		case "list":
			for _, n := range s.Reader().Nodes() {
				answer += " " + n.ID
			}
		case "close":
			err = s.Close()
		}
		switch {
		case errors.Is(err, ErrUncertain):
			answer = "uncertain"
		case errors.Is(err, ErrNotLeader):
			answer = "not leader"
		case err != nil:
			answer = "error " + err.Error()
		}
		fmt.Fprintln(out, answer)
	}
	return nil
}

// process is a manager in a process of its own.
type process struct {
	t         *testing.T
	dir, addr string
	env       []string

	mu  sync.Mutex // one question at a time
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func newProcess(t *testing.T, dir string) *process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &process{t: t, dir: dir, addr: l.Addr().String()}
	t.Cleanup(p.kill)
	return p
}

func (p *process) start() {
	p.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), asMember+"="+p.dir, asMember+"_ADDR="+p.addr), p.env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.in, p.out = cmd, in, bufio.NewScanner(out)
}

// ask sends a line and answers with the line that comes back, "" from a process that has died.
func (p *process) ask(line string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return ""
	}
	fmt.Fprintln(p.in, line)
	if !p.out.Scan() {
		return ""
	}
	return p.out.Text()
}

func (p *process) must(line string) {
	p.t.Helper()
	if got := p.ask(line); got != "ok" {
		p.t.Fatalf("%s: %s", line, got)
	}
}

// strike kills the process at whatever it does; reap waits for its end.
func (p *process) strike() { p.cmd.Process.Kill() } //nolint:errcheck // it may have died

func (p *process) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd.Wait() //nolint:errcheck // it was killed
	p.cmd = nil
}

func (p *process) kill() {
	if p.cmd != nil {
		p.strike()
		p.reap()
	}
}

// Managers that are killed in their processes, one after the other and the leader first, lose nothing that
// was acknowledged.
func TestKilledProcessesLoseNothing(t *testing.T) {
	var all []*process
	for i := range 3 {
		p := newProcess(t, filepath.Join(t.TempDir(), fmt.Sprint("p", i+1)))
		p.start()
		all = append(all, p)
	}
	all[0].must("bootstrap")
	for _, p := range all[1:] {
		all[0].must("add " + filepath.Base(p.dir) + " " + p.addr)
	}
	var mu sync.Mutex
	outcome := map[string]string{}
	acknowledged := 0
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w, p := range all {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("w%d-%d", w, i)
				answer := p.ask("put " + id)
				mu.Lock()
				outcome[id] = answer
				if answer == "ok" {
					acknowledged++
				}
				mu.Unlock()
				if answer != "ok" {
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	progress := func() {
		t.Helper()
		mu.Lock()
		from := acknowledged
		mu.Unlock()
		eventually(t, "updates", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return acknowledged > from+20
		})
	}
	leader := func() (found *process) {
		eventually(t, "a leader", func() bool {
			for _, p := range all {
				if p.ask("leads") == "ok" {
					found = p
					return true
				}
			}
			return false
		})
		return found
	}
	for range 4 {
		progress()
		p := leader()
		p.strike()
		p.reap()
		progress()
		p.start()
	}
	for _, p := range all { // all at once
		p.strike()
	}
	for _, p := range all {
		p.reap()
		p.start()
	}
	progress()
	close(stop)
	writers.Wait()
	there := map[string]bool{}
	for id := range strings.FieldsSeq(leader().ask("list")) {
		there[id] = true
	}
	counts := map[string]int{}
	for id, answer := range outcome {
		counts[answer]++
		if answer == "ok" && !there[id] {
			t.Errorf("%s was acknowledged and is lost", id)
		}
		if answer == "not leader" && there[id] {
			t.Errorf("%s was refused and is there", id)
		}
	}
	t.Log(counts)
}

func contextOfProcess() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 5*patience)
}
