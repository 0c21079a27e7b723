// Package scenario runs testscript files against the real programs and the real kernel.
//
// A scenario is one .txtar file: what a user types, and what comes of it. Each gets a daemon of its
// own in a temporary root, names the checklist items that it proves in comment lines such as
// "# S123 S124", and ends with a leak check that it cannot switch off: what the machine had of
// mounts, namespaces, cgroups, links, nft tables, processes and files before, it has after.
//
// Commands beside testscript's own:
//
//	daemon start [flag...]   start sampand with the scenario's root and wait until it answers
//	udpecho FILE             build a program that echoes UDP on port 9000
//	containersimage FILE     build a program that copies and verifies images as podman and skopeo do (library.go)
//	daemon kill              kill -9
//	daemon stop              SIGTERM, and wait until it is gone
//	node start|kill|stop NAME [flag...]   the same for one of several daemons, each with a machine's network and host
//	                         name; sets $NAME to its address. "exec on NAME CMD..." runs CMD there (node.go)
//	busybox [NAME]           import a busybox root filesystem as NAME (default busybox)
//	debian                   import the Debian root filesystem as debian, and put debs/ here
//	registry                 start Debian's docker-registry; sets $REGISTRY
//	tokenregistry [revoke]   start it behind a token server (token.go), which takes back the identity tokens it gave
//	archive docker|oci FILE NAME   write an image that go-containerregistry made
//	publish NAME[:TAG]       push that image to $REGISTRY; sets $DIGEST
//	corrupt                  flip a byte in the registry's largest blob; prints its digest
//	stargz [-gzip] NAME[:TAG]   push a larger image as eStargz, or plain gzip, to $REGISTRY (lazy.go)
//	throttle BYTES|count|down   a slow way to $REGISTRY, which counts; sets $SLOW (lazy.go)
//	freeport VAR...          set each variable to a port of 127.0.0.1 that is free
//	waitfor [-n] CMD...      run CMD until it succeeds (-n: fails), for 20 seconds at most
//	http URL [TEXT]          GET URL until it answers 200 with TEXT in its body
//	peer podman|rootless|containerd|dockerd   start another engine that runs its containers with our runtime (peer.go)
//	certs DIR                make an authority and certificates of servers and clients (connect.go)
//	sshd                     start OpenSSH's server; sets $SSHPORT (connect.go)
//	release VERSION DIR      make a Debian package in a package source (release.go); $SRC is the module
//	websocket PATH TEXT      attach by a websocket, say TEXT, and print what comes
//	setout VAR               set the variable to the last command's trimmed stdout
//	terminal FILE CMD...     run CMD on a terminal, and type the dialogue of FILE (terminal.go)
//	leaks                    stop the daemon and check for leaks now (done at the end anyway)
package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience is how long the polling commands try; it bounds a hang and asserts no speed.
const patience = 60 * time.Second

type stateKey struct{}

// state is what one running scenario owns outside of its work directory.
type state struct {
	root   string // short, because a unix socket's path has 107 bytes
	bin    string
	before machine
	daemon *exec.Cmd
	others []*exec.Cmd
	ends   []func() error // what ends the peers, the last one first
	bridge string

	throttled *throttled   // see lazy.go
	tokens    *tokenServer // see token.go
	nodes     nodes        // see node.go

	apart bool // the daemon has a network namespace of its own
}

// Run runs every .txtar file of dir as a subtest named after the file.
func Run(t *testing.T, dir string) {
	if os.Geteuid() != 0 {
		t.Skip("scenarios need root: they make namespaces, cgroups and mounts")
	}
	bin := programs(t)
	testscript.RunT(serial{t}, testscript.Params{
		Dir:                 dir,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup:               func(e *testscript.Env) error { return setup(e, bin) },
		Cmds:                commands,
		Condition:           condition,
		RequireExplicitExec: true,
	})
}

// condition knows of the machine what testscript does not: [systemd], it was booted with it (sd_booted(3)); [ipv6],
// programs can listen on ::1; [xfsquota], an XFS can be made and mounted that keeps limits of projects.
func condition(name string) (bool, error) {
	switch name {
	case "systemd":
		_, err := os.Stat("/run/systemd/system")
		return err == nil, nil
	case "xfsquota":
		return xfsQuota(), nil
	case "ipv6":
		l, err := net.Listen("tcp6", "[::1]:0")
		if err == nil {
			l.Close()
		}
		return err == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// serial runs one scenario after the other: each compares the whole machine with what was before it.
type serial struct{ *testing.T }

func (serial) Parallel() {}

func (s serial) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(serial{t}) })
}

func (serial) Verbose() bool { return testing.Verbose() }

// programs returns the directory of the built programs: $SAMPAN_BIN, or a fresh build.
func programs(t *testing.T) string {
	if dir := os.Getenv("SAMPAN_BIN"); dir != "" {
		return dir
	}
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env GOMOD: %v", err)
	}
	module := filepath.Dir(strings.TrimSpace(string(out)))
	build := exec.Command("make", "-s", "build")
	build.Dir = module
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	return filepath.Join(module, "bin")
}

func setup(e *testscript.Env, bin string) error {
	root, err := os.MkdirTemp("/tmp", "sp")
	if err != nil {
		return err
	}
	if err := os.Chmod(root, 0o711); err != nil {
		return err
	}
	s := &state{root: root, bin: bin, bridge: "spt" + filepath.Base(root)[2:min(len(filepath.Base(root)), 12)]}
	if s.before, err = observe(s.root); err != nil {
		return err
	}
	e.Values[stateKey{}] = s
	src, err := source()
	if err != nil {
		return err
	}
	host := "unix://" + filepath.Join(root, "s.sock")
	for _, v := range [][2]string{
		{"PATH", bin + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin"},
		{"HOME", e.WorkDir}, {"BIN", bin}, {"SRC", src}, {"ROOT", root}, {"SOCK", filepath.Join(root, "s.sock")},
		{"SAMPAN_HOST", host}, {"DOCKER_HOST", host}, {"BRIDGE", s.bridge}, {"TERM", "xterm"},
		{"XDG_STATE_HOME", filepath.Join(e.WorkDir, ".state")}, {"XDG_CACHE_HOME", filepath.Join(e.WorkDir, ".cache")},
	} {
		e.Setenv(v[0], v[1])
	}
	e.Defer(func() {
		err := s.leaks()
		if err != nil && os.Getenv("SAMPAN_LEAKS") == "tolerate" {
			err = nil // somebody else is at work on this machine
		}
		if err != nil {
			e.T().Log(err)
			e.T().Log("sampand's log:\n" + tail(filepath.Join(root, "log")))
			for _, n := range s.nodes.list {
				e.T().Log("sampand's log on " + n.name + ":\n" + tail(filepath.Join(root, n.name, "log")))
			}
			if os.Getenv("KEEP") != "" {
				e.T().Log("left for you to look at: " + root)
				e.T().FailNow()
			}
		}
		// A mount that leaked must not turn the clean-up into the removal of its source.
		if mounts, merr := mountsBelow(root); merr == nil && len(mounts) == 0 {
			if rerr := os.RemoveAll(root); rerr != nil {
				err = errors.Join(err, rerr)
			}
		}
		if err != nil {
			e.T().FailNow()
		}
	})
	return nil
}

func of(ts *testscript.TestScript) *state { return ts.Value(stateKey{}).(*state) }

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"daemon":   daemon,
	"node":     nodeCommand,
	"busybox":  busybox,
	"debian":   debian,
	"registry": registry,

	"tokenregistry": tokenRegistry,

	"archive":  archive,
	"publish":  publish,
	"stargz":   stargz,
	"throttle": throttle,
	"corrupt":  corrupt,
	"freeport": freeport,
	"udpecho":  udpEcho,

	"containersimage": containersImage,

	"waitfor":   waitfor,
	"http":      httpGet,
	"peer":      startPeer,
	"setout":    setout,
	"certs":     certs,
	"sshd":      sshd,
	"release":   release,
	"websocket": websocketCommand,
	"terminal":  terminal,
	"leaks": func(ts *testscript.TestScript, neg bool, args []string) {
		noArguments(ts, "leaks", neg, args)
		ts.Check(of(ts).leaks())
	},
}

func noArguments(ts *testscript.TestScript, name string, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: %s", name)
	}
}

func daemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: daemon start [flag...] | kill | stop")
	}
	s := of(ts)
	switch args[0] {
	case "start":
		ts.Check(s.start(args[1:]))
	case "kill":
		ts.Check(s.end(syscall.SIGKILL))
	case "stop":
		ts.Check(s.end(syscall.SIGTERM))
	default:
		ts.Fatalf("daemon %s: expected start, kill or stop", args[0])
	}
}

func (s *state) start(flags []string) error {
	if s.daemon != nil {
		return errors.New("the daemon runs already")
	}
	log, err := os.OpenFile(filepath.Join(s.root, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{
		"-H", "unix://" + filepath.Join(s.root, "s.sock"), "--data-root", filepath.Join(s.root, "data"),
		"--exec-root", filepath.Join(s.root, "run"), "--pidfile", filepath.Join(s.root, "pid"),
		"--config-file", filepath.Join(s.root, "daemon.json"), "--bridge", s.bridge,
		"--cgroup-parent", cgroupParent(s.root), "--debug",
	}, flags...)
	cmd := exec.Command(filepath.Join(s.bin, "sampand"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+s.root)
	if s.apart {
		ownNetwork(cmd)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	client := socketClient(filepath.Join(s.root, "s.sock"))
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-gone:
			return fmt.Errorf("sampand ended at once: %w\n%s", err, tail(log.Name()))
		default:
		}
		if resp, err := client.Get("http://sampan/_ping"); err == nil {
			resp.Body.Close()
			s.daemon = cmd
			return nil
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			return fmt.Errorf("sampand does not answer on its socket\n%s", tail(log.Name()))
		}
	}
}

func (s *state) end(sig syscall.Signal) error {
	if s.daemon == nil {
		return errors.New("the daemon does not run")
	}
	pid := s.daemon.Process.Pid
	s.daemon = nil
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("signal sampand: %w", err)
	}
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return nil
		}
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	return fmt.Errorf("sampand did not end within %s of %s\n%s", 2*patience, sig, tail(filepath.Join(s.root, "log")))
}

// sampan runs the client with standard input and returns its combined output.
func (s *state) sampan(stdin io.Reader, args ...string) error {
	cmd := exec.Command(filepath.Join(s.bin, "sampan"), args...)
	cmd.Env = append(os.Environ(), "SAMPAN_HOST=unix://"+filepath.Join(s.root, "s.sock"), "HOME="+s.root)
	cmd.Stdin = stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sampan %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func busybox(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: busybox [NAME]")
	}
	name := "busybox"
	if len(args) == 1 {
		name = args[0]
	}
	archive, err := BusyboxRootfs()
	ts.Check(err)
	ts.Check(of(ts).sampan(bytes.NewReader(archive), "import", "-c", `CMD ["sh"]`, "-", name))
}

func debian(ts *testscript.TestScript, neg bool, args []string) {
	noArguments(ts, "debian", neg, args)
	fixtures := filepath.Join(filepath.Dir(of(ts).bin), "build", "fixtures")
	ts.Check(of(ts).sampan(nil, "import", filepath.Join(fixtures, "debian.tar"), "debian"))
	ts.Check(os.CopyFS(ts.MkAbs("debs"), os.DirFS(filepath.Join(fixtures, "debs"))))
}

func registry(ts *testscript.TestScript, neg bool, args []string) {
	noArguments(ts, "registry", neg, args)
	startRegistry(ts, "")
}

// startRegistry starts docker-registry; more is of its configuration.
func startRegistry(ts *testscript.TestScript, more string) {
	s := of(ts)
	address := fmt.Sprintf("127.0.0.1:%d", free(ts))
	config := filepath.Join(s.root, "registry.yml")
	ts.Check(os.WriteFile(config, fmt.Appendf(nil,
		"version: 0.1\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %q}\n%s",
		filepath.Join(s.root, "registry"), address, more), 0o600))
	log, err := os.Create(filepath.Join(s.root, "registry.log"))
	ts.Check(err)
	defer log.Close()
	cmd := exec.Command("docker-registry", "serve", config)
	cmd.Stdout, cmd.Stderr = log, log
	ts.Check(cmd.Start())
	s.others = append(s.others, cmd)
	ts.Setenv("REGISTRY", address)
	ts.Check(poll(func() error {
		resp, err := http.Get("http://" + address + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}))
}

// freePorts are below those that the kernel gives to outgoing connections and engines publish at random
// (ip_local_port_range): nobody takes one between its being found free and its being listened on.
const (
	firstFreePort = 20000
	freePorts     = 12000
)

var lastFreePort atomic.Uint32 // counted from a random one: no port is given twice

func init() { lastFreePort.Store(rand.Uint32N(freePorts)) }

func free(ts *testscript.TestScript) int {
	for range freePorts {
		port := firstFreePort + int(lastFreePort.Add(1)%freePorts)
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		ts.Check(l.Close())
		return port
	}
	ts.Fatalf("no port from %d on is free", firstFreePort)
	return 0
}

func freeport(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: freeport VAR...")
	}
	for _, name := range args {
		ts.Setenv(name, fmt.Sprint(free(ts)))
	}
}

func waitfor(ts *testscript.TestScript, neg bool, args []string) {
	fails := len(args) > 0 && args[0] == "-n"
	if fails {
		args = args[1:]
	}
	if neg || len(args) == 0 {
		ts.Fatalf("usage: waitfor [-n] CMD...")
	}
	ts.Check(poll(func() error {
		err := ts.Exec(args[0], args[1:]...)
		if fails && err == nil {
			return fmt.Errorf("%s still succeeds", strings.Join(args, " "))
		}
		if fails {
			return nil
		}
		return err
	}))
}

func httpGet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args) > 2 {
		ts.Fatalf("usage: http URL [TEXT]")
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	ts.Check(poll(func() error {
		resp, err := client.Get(args[0])
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK || len(args) == 2 && !strings.Contains(string(body), args[1]) {
			return fmt.Errorf("GET %s: %s\n%s", args[0], resp.Status, body)
		}
		return nil
	}))
}

func setout(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: setout VAR")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// poll calls try until it succeeds or patience ends, and returns its last error.
func poll(try func() error) error {
	var err error
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if err = try(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func socketClient(path string) *http.Client {
	return &http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
}

// tail returns the end of a file, for messages.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-8<<10):])
}

// udpEcho builds the program that answers UDP on port 9000 at a path.
func udpEcho(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: udpecho FILE")
	}
	// A machine without Go, such as the virtual one, is given the program.
	if made, err := os.ReadFile(filepath.Join(of(ts).bin, "udpecho")); err == nil {
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), made, 0o755))
		return
	}
	cmd := exec.Command("go", "build", "-o", ts.MkAbs(args[0]), "github.com/sampan-project/sampan/tests/scenario/udpecho")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("build udpecho: %v\n%s", err, out)
	}
}
