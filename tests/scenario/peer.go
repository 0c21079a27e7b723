package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// A peer is another engine that runs its containers with our runtime, or with the one that
// $SAMPAN_RUNTIME names: what fails with ours can be compared with what runc does there. Its data, its
// state and its configuration are in the scenario's root, its containers in the scenario's cgroup and
// without a network; the program of its name in $ROOT/bin has the options for that, so that a scenario
// says "exec podman run ..." as a user would.
type peer struct{ state *state }

// peers have a function that starts them.
var peers = map[string]func(peer) error{"podman": peer.podman, "rootless": peer.rootless, "containerd": peer.containerd, "dockerd": peer.dockerd}

// startPeer is the command peer: it returns when the engine answers. Podman and Docker have the image
// busybox then.
func startPeer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || peers[args[0]] == nil {
		ts.Fatalf("usage: peer podman|rootless|containerd|dockerd")
	}
	s := of(ts)
	ts.Setenv("PATH", filepath.Join(s.root, "bin")+":"+ts.Getenv("PATH"))
	ts.Setenv("RUNTIME", s.runtime())
	ts.Setenv("CGROUP", cgroupParent(s.root))
	if len(s.ends) == 0 {
		s.tidy()
	}
	ts.Check(peers[args[0]](peer{state: s}))
}

// runtime is the program that the peers call.
func (s *state) runtime() string {
	if other := os.Getenv("SAMPAN_RUNTIME"); other != "" {
		if path, err := exec.LookPath(other); err == nil {
			return path
		}
		return other
	}
	return filepath.Join(s.bin, "sampan-runtime")
}

// tidy removes at the end what no peer removes: directories of fixed names that were not there before,
// as far as they are empty, and the cgroup that they were told to put containers in.
func (s *state) tidy() {
	var absent []string
	for _, dir := range []string{
		"/run/containerd", "/run/containers", "/run/docker", "/run/libpod", "/run/netns", "/run/" + filepath.Base(s.runtime()),
		"/var/lib/cni", "/var/lib/containers", "/etc/docker",
	} {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			absent = append(absent, dir)
		}
	}
	s.ends = append(s.ends, func() error {
		for _, dir := range absent {
			if dir == "/var/lib/containers" { // what the image library of Podman remembers of registries
				_ = os.Remove(dir + "/cache/blob-info-cache-v1.boltdb")
			}
			removeEmpty(dir)
		}
		return s.removeCgroups("conmon", "")
	})
}

// removeEmpty removes a directory and those below it that have nothing else in them.
func removeEmpty(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeEmpty(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir) // what is in it is told as a leak
}

// removeCgroups removes cgroups below the parent of the scenario's containers, "" being that itself.
func (s *state) removeCgroups(names ...string) error {
	found, err := cgroups(s.root)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		for dir := range found {
			if strings.HasSuffix(dir, filepath.Join(cgroupParent(s.root), name)) {
				errs = append(errs, poll(func() error { return os.Remove(dir) }))
			}
		}
	}
	return errors.Join(errs...)
}

// write puts a file into the scenario's root.
func (p peer) write(name, text string, mode os.FileMode) (string, error) {
	path := filepath.Join(p.state.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(text), mode)
}

// program is a program in $ROOT/bin that runs a command of the machine with options. $ROOT is the root.
func (p peer) program(name, script string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	script = strings.NewReplacer("$ROOT", p.state.root, "$PROGRAM", path, "$CGROUP", cgroupParent(p.state.root), "$RUNTIME", p.state.runtime()).Replace(script)
	_, err = p.write("bin/"+name, "#!/bin/sh\n"+script+"\n", 0o755)
	return err
}

// call runs one of the programs in $ROOT/bin.
func (p peer) call(stdin []byte, name string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(p.state.root, "bin", name), args...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), "HOME="+p.state.root)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// serve starts a daemon that ends with the scenario, and waits until it listens on a socket in the root.
// It has a network namespace of its own: dockerd without a bridge removes the machine's docker0.
func (p peer) serve(socket, name string, args ...string) error {
	log, err := os.Create(filepath.Join(p.state.root, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+p.state.root, "TMPDIR="+p.state.root)
	ownNetwork(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	p.state.ends = append(p.state.ends, func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-gone //nolint:errcheck // its containers are gone, and it may end as it likes
		return nil
	})
	return poll(func() error {
		conn, err := net.Dial("unix", filepath.Join(p.state.root, socket))
		if err != nil {
			return fmt.Errorf("%w\n%s", err, tail(log.Name()))
		}
		return conn.Close()
	})
}

func (p peer) podman() error {
	err := p.configure(p.state.root, p.state.runtime(), `
case $1 in
run|create) verb=$1; shift; set -- "$verb" --cgroup-parent $CGROUP "$@" ;;
pod) [ "$2" = create ] && { shift 2; set -- pod create --cgroup-parent $CGROUP "$@"; } ;;
esac
exec`)
	if err != nil {
		return err
	}
	p.state.ends = append(p.state.ends, func() error {
		_, err := p.call(nil, "podman", "pod", "rm", "-fa", "-t", "0")
		_, rerr := p.call(nil, "podman", "rm", "-fa", "-t", "0")
		return errors.Join(err, rerr, p.settle())
	})
	return p.importInto("podman")
}

// nobody is the user of the rootless Podman: it has no name in subuid(5), so that its own id is all that
// can be mapped.
const nobody = 65534

// rootless is Podman as an ordinary user.
func (p peer) rootless() error {
	dir := filepath.Join(p.state.root, "user")
	for _, d := range []string{dir, dir + "/run"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
		if err := os.Chown(d, nobody, nobody); err != nil {
			return err
		}
	}
	// The user may have no way to where the programs are.
	program, err := os.ReadFile(p.state.runtime())
	if err != nil {
		return err
	}
	runtime := filepath.Join(dir, filepath.Base(p.state.runtime()))
	if err := os.WriteFile(runtime, program, 0o755); err != nil {
		return err
	}
	err = p.configure(dir, runtime, fmt.Sprintf(`cd $ROOT
exec setpriv --reuid %d --regid %d --clear-groups env -i PATH="$PATH" TERM=xterm HOME=$ROOT XDG_RUNTIME_DIR=$ROOT/run TMPDIR=$ROOT CONTAINERS_CONF=$CONTAINERS_CONF CONTAINERS_STORAGE_CONF=$CONTAINERS_STORAGE_CONF`, nobody, nobody))
	if err != nil {
		return err
	}
	p.state.ends = append(p.state.ends, func() error {
		_, err := p.call(nil, "podman", "rm", "-fa", "-t", "0")
		_, merr := p.call(nil, "podman", "system", "migrate") // ends the process that holds its namespaces
		return errors.Join(err, merr, p.settle())
	})
	return p.importInto("podman")
}

// configure writes Podman's configuration into a directory, and its program, of which run is the
// beginning of the last command.
func (p peer) configure(dir, runtime, run string) error {
	name := filepath.Base(runtime)
	// Podman's own default limits cannot be had by a root without CAP_SYS_RESOURCE, with any runtime.
	conf := fmt.Sprintf(`[containers]
default_ulimits = []
netns = "none"
init_path = "/usr/bin/tini-static"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = %q
runtime_supports_json = [%q]
[engine.runtimes]
%s = [%q]
`, name, name, name, runtime)
	if err := os.WriteFile(filepath.Join(dir, "containers.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	// A user without subordinate ids cannot give files to others.
	storage := fmt.Sprintf(`[storage]
driver = "overlay"
runroot = "%[1]s/runroot"
graphroot = "%[1]s/graph"
[storage.options.overlay]
ignore_chown_errors = "%[2]t"
`, dir, dir != p.state.root)
	if err := os.WriteFile(filepath.Join(dir, "storage.conf"), []byte(storage), 0o644); err != nil {
		return err
	}
	return p.program("podman", strings.ReplaceAll(`export CONTAINERS_CONF=$ROOT/containers.conf CONTAINERS_STORAGE_CONF=$ROOT/storage.conf TMPDIR=$ROOT
`+run+" $PROGRAM --runtime "+name+` --root $ROOT/graph --runroot $ROOT/runroot --tmpdir $ROOT/tmp "$@"`, "$ROOT", dir))
}

// importInto gives an engine the image busybox.
func (p peer) importInto(name string) error {
	archive, err := BusyboxRootfs()
	if err == nil {
		_, err = p.call(archive, name, "import", "-c", `CMD ["sh"]`, "-", "busybox")
	}
	return err
}

// settle waits until the processes that clean up after Podman's containers have ended, and removes
// the mount of the overlay driver, which binds its directory on itself and may leave it so.
func (p peer) settle() error {
	err := poll(func() error {
		left, _, err := processes(p.state.root)
		for name := range left {
			err = fmt.Errorf("leaked: process %s", name)
		}
		return err
	})
	if uerr := unix.Unmount(filepath.Join(p.state.root, "graph/overlay"), unix.MNT_DETACH); !errors.Is(uerr, unix.EINVAL) && !errors.Is(uerr, unix.ENOENT) {
		err = errors.Join(err, uerr)
	}
	return err
}

func (p peer) containerd() error {
	config, err := p.write("containerd.toml", strings.ReplaceAll(`version = 2
root = "$ROOT/containerd"
state = "$ROOT/containerd.run"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "$ROOT/c.sock"
[ttrpc]
address = "$ROOT/c.sock.ttrpc"
`, "$ROOT", p.state.root), 0o644)
	if err != nil {
		return err
	}
	// Its namespace is the first part of the cgroup's path.
	if err := p.program("ctr", "exec $PROGRAM -a $ROOT/c.sock -n "+strings.TrimPrefix(cgroupParent(p.state.root), "/")+` "$@"`); err != nil {
		return err
	}
	return p.serve("c.sock", "containerd", "--config", config)
}

func (p peer) dockerd() error {
	return p.dockerdWith("--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
		"--add-runtime", "sampan="+p.state.runtime(), "--default-runtime", "sampan")
}

// dockerdWith starts containerd and dockerd, with options beside those that keep them in the root.
func (p peer) dockerdWith(options ...string) error {
	// It leaves the bind mount of the network namespace of `--network host`.
	p.state.ends = append(p.state.ends, func() error {
		err := unix.Unmount(filepath.Join(p.state.root, "docker.run/netns/default"), unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	})
	if err := p.containerd(); err != nil {
		return err
	}
	// The key of its identity would be in /etc.
	config, err := p.write("dockerd.json", fmt.Sprintf("{\"deprecated-key-path\": %q}", p.state.root+"/key.json"), 0o644)
	if err != nil {
		return err
	}
	if err := p.program("docker", `exec $PROGRAM -H unix://$ROOT/d.sock "$@"`); err != nil {
		return err
	}
	root := p.state.root
	err = p.serve("d.sock", "dockerd", append([]string{"--config-file", config, "--host", "unix://" + root + "/d.sock",
		"--containerd", root + "/c.sock", "--data-root", root + "/docker", "--exec-root", root + "/docker.run", "--pidfile", root + "/d.pid",
		"--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", cgroupParent(root)}, options...)...)
	if err != nil {
		return err
	}
	p.state.ends = append(p.state.ends, func() error {
		ids, err := p.call(nil, "docker", "ps", "-aq")
		if err == nil && ids != "" {
			_, err = p.call(nil, "docker", append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
		}
		return err
	})
	return p.importInto("docker")
}
