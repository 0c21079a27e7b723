// Package images looks at images from outside: what goes to a real registry and comes from there, with
// Debian's skopeo, Podman and dockerd on the other side; what an unpacked image is, file by file, beside
// what others unpack; and what is left of a transfer that fails.
//
// The tests run in a network and a mount namespace of their own: dockerd without a bridge would remove the
// machine's, and what an engine leaves mounted goes with the namespace.
package images

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sampan-project/sampan/tests/scenario"
)

// inside says to this program that it is in its namespaces.
const inside = "SAMPAN_IMAGES_INSIDE"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	args := append([]string{"--net", "--mount", "sh", "-c", `ip link set lo up && exec "$@"`, "sh", self}, os.Args[1:]...)
	cmd := exec.Command("unshare", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// lab is our daemon and the programs of others, all with their files below one directory.
type lab struct {
	*scenario.Daemon
	t   *testing.T
	dir string
}

func newLab(t *testing.T, flags ...string) *lab {
	t.Helper()
	l := &lab{Daemon: scenario.Alone(t, ""), t: t}
	dir, err := os.MkdirTemp("/tmp", "sp") // short, for sockets, and not in the daemon's root
	l.check(err)
	l.dir = dir
	t.Cleanup(func() { l.check(os.RemoveAll(dir)) })
	l.check(l.Start(flags...))
	return l
}

func (l *lab) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// run runs a program and returns its trimmed standard output.
func (l *lab) run(name string, args ...string) (string, error) {
	cmd := exec.CommandContext(l.t.Context(), name, args...)
	return l.output(cmd)
}

func (l *lab) output(cmd *exec.Cmd) (string, error) {
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "HOME="+l.dir, "TMPDIR="+l.dir, "XDG_RUNTIME_DIR="+l.dir)
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out.Bytes(), problem.Bytes())
	}
	return strings.TrimSpace(out.String()), err
}

func (l *lab) must(name string, args ...string) string {
	l.t.Helper()
	out, err := l.run(name, args...)
	l.check(err)
	return out
}

// sampan runs our client.
func (l *lab) sampan(args ...string) (string, error) {
	out, err := l.Command(l.t.Context(), args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("sampan %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (l *lab) ours(args ...string) string {
	l.t.Helper()
	out, err := l.sampan(args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// clean asks the daemon whether its stores are whole.
func (l *lab) clean() {
	l.t.Helper()
	l.check(scenario.Poll(func() error { _, err := l.sampan("system", "check", "--verify"); return err }))
}

// need skips without a program of Debian's, as on a machine that may not install it.
func need(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// registry is Debian's docker-registry, which can be killed and started again where it was.
type registry struct {
	l      *lab
	Host   string
	config string
	cmd    *exec.Cmd
}

func (l *lab) registry() *registry {
	l.t.Helper()
	need(l.t, "docker-registry")
	r := &registry{l: l, Host: freeAddress(l.t), config: filepath.Join(l.dir, "registry.yml")}
	l.check(os.WriteFile(r.config, fmt.Appendf(nil,
		"version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/registry}, delete: {enabled: true}}\nhttp: {addr: %q}\n", l.dir, r.Host), 0o600))
	r.start()
	l.t.Cleanup(r.kill)
	return r
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func (r *registry) start() {
	r.l.t.Helper()
	r.cmd = exec.Command("docker-registry", "serve", r.config)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r.l.check(r.cmd.Start())
	r.l.check(scenario.Poll(func() error {
		resp, err := http.Get("http://" + r.Host + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}))
}

func (r *registry) kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		r.cmd = nil
	}
}

// front stands before a registry and notes what it is asked.
type front struct {
	Host string

	mu  sync.Mutex
	log []string // "GET /v2/... bytes=..."
	// pace is slept before each piece of a blob that is passed on.
	pace time.Duration
	// each is told of a blob's bytes as they are passed on.
	each func(total int)
}

func (r *registry) front() *front {
	r.l.t.Helper()
	f := &front{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: r.Host})
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) }
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		f.mu.Lock()
		f.log = append(f.log, strings.TrimSpace(q.Method+" "+q.URL.RequestURI()+" "+q.Header.Get("Range")))
		f.mu.Unlock()
		if q.Method == http.MethodGet && strings.Contains(q.URL.Path, "/blobs/") {
			w = &paced{w, f, 0}
		}
		proxy.ServeHTTP(w, q)
	}))
	r.l.t.Cleanup(s.Close)
	f.Host = strings.TrimPrefix(s.URL, "http://")
	return f
}

// asked returns the requests since the last call that contain one of the texts.
func (f *front) asked(texts ...string) (list []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, line := range f.log {
		for _, text := range texts {
			if strings.Contains(line, text) {
				list = append(list, line)
				break
			}
		}
	}
	f.log = nil
	return list
}

type paced struct {
	http.ResponseWriter
	f     *front
	total int
}

func (p *paced) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		p.f.mu.Lock()
		pace, each := p.f.pace, p.f.each
		p.f.mu.Unlock()
		time.Sleep(pace)
		n, err := p.ResponseWriter.Write(b[:min(len(b), 64<<10)])
		if written += n; err != nil {
			return written, err
		}
		if pace > 0 {
			p.ResponseWriter.(http.Flusher).Flush()
		}
		b = b[n:]
		if p.total += n; each != nil {
			each(p.total)
		}
	}
	return written, nil
}

// docker starts Debian's dockerd and returns a function that runs its client.
func (l *lab) docker() func(args ...string) (string, error) {
	l.t.Helper()
	need(l.t, "dockerd", "docker", "containerd")
	socket := filepath.Join(l.dir, "d.sock")
	config := filepath.Join(l.dir, "docker.json")
	l.check(os.WriteFile(config, fmt.Appendf(nil, "{\"deprecated-key-path\": %q}", l.dir+"/key.json"), 0o600))
	out, err := os.Create(filepath.Join(l.dir, "dockerd.log"))
	l.check(err)
	defer out.Close()
	cmd := exec.Command("dockerd", "--config-file", config, "--host", "unix://"+socket, "--data-root", l.dir+"/docker", "--exec-root", l.dir+"/docker.run",
		"--pidfile", l.dir+"/d.pid", "--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs",
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "HOME="+l.dir, "TMPDIR="+l.dir)
	l.check(cmd.Start())
	l.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		l.unmount()
	})
	docker := func(args ...string) (string, error) {
		return l.run("docker", append([]string{"-H", "unix://" + socket}, args...)...)
	}
	l.check(scenario.Poll(func() error { _, err := docker("version"); return err }))
	return docker
}

// podman returns a function that runs Podman with a store of its own.
func (l *lab) podman() func(args ...string) (string, error) {
	l.t.Helper()
	need(l.t, "podman")
	l.t.Cleanup(l.unmount)
	return func(args ...string) (string, error) {
		return l.run("podman", append([]string{"--root", l.dir + "/graph", "--runroot", l.dir + "/runroot", "--tmpdir", l.dir + "/podman", "--cgroup-manager", "cgroupfs", "--events-backend", "file"}, args...)...)
	}
}

// unmount removes the mounts that an engine has left below the lab's directory.
func (l *lab) unmount() {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	l.check(err)
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if fields := strings.Fields(lines[i]); len(fields) > 4 && strings.HasPrefix(fields[4], l.dir+"/") {
			_ = syscall.Unmount(fields[4], syscall.MNT_DETACH)
		}
	}
}
