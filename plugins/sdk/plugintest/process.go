// Package plugintest is the conformance suite for plugins: what every driver of a kind has to do,
// tried on the real program over a real connection, as the engine speaks to it.
//
//	func TestConformance(t *testing.T) {
//		plugintest.Network(t, plugintest.Config{Program: "bin/plugins/sampan-network-bridge"})
//	}
//
// The plugin runs in a network namespace of its own, as its host, so that the machine's network is not
// touched. That needs root.
package plugintest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/sampan-project/sampan/proto"
)

// Config says what to test.
type Config struct {
	// Program is the plugin's file, called sampan-KIND-NAME.
	Program string
	// Options are valid options to make things with; nil when the driver's defaults will do.
	Options map[string]string
	// Timeout of each call; 0 is 10 s.
	Timeout time.Duration
}

// kindAndName are the parts of the program's name.
func (c Config) kindAndName(t *testing.T) (kind, name string) {
	t.Helper()
	kind, name, ok := strings.Cut(strings.TrimPrefix(filepath.Base(c.Program), proto.Prefix), "-")
	if !ok || !strings.HasPrefix(filepath.Base(c.Program), proto.Prefix) {
		t.Fatalf("program %s: expected a file called %sKIND-NAME", c.Program, proto.Prefix)
	}
	return kind, name
}

// process is the plugin, running.
type process struct {
	conn *grpc.ClientConn
	cmd  *exec.Cmd
	end  func()
}

// start runs the plugin in the namespace.
func start(t *testing.T, c Config, host *namespace) *process {
	t.Helper()
	p := &process{cmd: exec.Command(c.Program)}
	p.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", goplugin.EnvUnixSocketDir + "=" + t.TempDir()}
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: proto.Version, MagicCookieKey: proto.CookieKey, MagicCookieValue: proto.CookieValue,
		},
		VersionedPlugins: map[int]goplugin.PluginSet{proto.Version: {proto.Service: &connection{}}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Cmd:              p.cmd, AutoMTLS: true, SkipHostEnv: true, StartTimeout: 10 * time.Second,
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: t.Output()}),
	})
	if err := host.do(func() error { _, err := client.Start(); return err }); err != nil {
		t.Fatalf("start %s: %v", c.Program, err)
	}
	p.end = client.Kill
	t.Cleanup(p.end)
	protocol, err := client.Client()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := protocol.Dispense(proto.Service)
	if err != nil {
		t.Fatal(err)
	}
	p.conn = raw.(*grpc.ClientConn)
	return p
}

// crash ends the process as a bug would.
func (p *process) crash() {
	_ = p.cmd.Process.Kill() // it may have ended, which end finds out
	p.end()
}

// connection gives us the bare gRPC connection.
type connection struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (*connection) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.New("the suite serves nothing")
}

func (*connection) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return c, nil
}

// namespace is a network namespace with a thread that stays in it.
type namespace struct {
	file *os.File
	work chan func()
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.file, err = os.Open("/proc/thread-self/ns/net")
		}
		if err == nil {
			err = loopbackUp()
		}
		ready <- err
		for fn := range n.work {
			fn()
		}
	}()
	if err := <-ready; errors.Is(err, unix.EPERM) {
		t.Skip("a network namespace needs root")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	return n
}

func (n *namespace) close() {
	if n.work != nil {
		close(n.work)
		n.file.Close()
		n.work = nil
	}
}

// path is what goes to the plugin.
func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// do runs fn on the thread in the namespace.
func (n *namespace) do(fn func() error) error {
	result := make(chan error, 1)
	n.work <- func() { result <- fn() }
	return <-result
}

// loopbackUp is for 127.0.0.1 in a new namespace: netdevice(7).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(syscall.IFF_UP | syscall.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
