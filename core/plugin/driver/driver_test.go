package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network"
	"github.com/sampan-project/sampan/core/plugin"
)

var (
	_ network.Drivers  = (*Set)(nil)
	_ network.Restarts = (*Set)(nil)
	_ network.Driver   = (*networkDriver)(nil)
)

// The tests run, with the plugin, in a fresh network namespace: see plugins/network/bridge.
const inHost = "SAMPAN_DRIVER_TEST_HOST"

func TestMain(m *testing.M) {
	if os.Getenv(inHost) != "" {
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		fmt.Println("SKIP: making a network namespace needs root")
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inHost+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}

func newSet(t testing.TB) *Set {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "sampan-network-bridge"), "../../../plugins/network/bridge")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h, err := plugin.NewHost(plugin.Options{Dirs: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return New(h)
}

func namespace(t testing.TB) *os.File {
	t.Helper()
	made := make(chan *os.File)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- nil // not the host's own
			return
		}
		f, _ := os.Open("/proc/thread-self/ns/net")
		made <- f
	}()
	f := <-made
	if f == nil {
		t.Fatal("no network namespace")
	}
	t.Cleanup(func() { f.Close() })
	return f
}

var (
	testNetwork = network.Network{
		ID: strings.Repeat("1a", 32), Name: "front", Driver: "bridge", Owner: strings.Repeat("b", 12), IPv4: true,
		Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.77.0.0/24"), Gateway: netip.MustParseAddr("10.77.0.1")}},
		Options: map[string]string{"com.docker.network.driver.mtu": "1400"},
	}
	testEndpoint = network.Endpoint{
		ID: strings.Repeat("2b", 32), NetworkID: testNetwork.ID, ContainerID: strings.Repeat("3c", 32), Interface: "eth0",
		MAC: "02:42:0a:4d:00:02", Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.2/24")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.77.0.1")},
		Ports:    []network.Port{{Protocol: "tcp", HostAddress: netip.IPv4Unspecified(), HostPort: 8080, ContainerPort: 80}},
	}
)

func TestNetworkDriverOverAProcess(t *testing.T) {
	s := newSet(t)
	if _, err := s.Network(t.Context(), "brigde"); fault.ClassOf(err) != fault.NotFound || !strings.Contains(err.Error(), `"bridge"`) {
		t.Errorf("unknown driver: %v", err)
	}
	d, err := s.Network(t.Context(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	if list, err := s.Plugins(t.Context()); err != nil || len(list) != 1 || list[0].State != "idle" || !strings.HasPrefix(list[0].Digest, "sha256:") {
		t.Errorf("%+v %v", list, err)
	}
	n, err := d.CreateNetwork(t.Context(), testNetwork)
	if err != nil {
		t.Fatal(err)
	}
	if n.Settings["mtu"] != "1400" || n.Settings["icc"] != "true" || n.InterfacePrefix != "eth" || n.Name != "front" {
		t.Errorf("%+v", n)
	}
	ns, e := namespace(t), testEndpoint
	e.NetNS = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
	a, err := d.Attach(t.Context(), n, e)
	if err != nil {
		t.Fatal(err)
	}
	if a.HostInterface == "" || a.MAC != e.MAC {
		t.Errorf("%+v", a)
	}
	for range 2 {
		if err := d.Detach(t.Context(), n, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Reconcile(t.Context(), n.Owner, []network.Network{n}, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.DeleteNetwork(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.Schemas(t.Context())
	if err != nil || len(list) != 1 || list[0].Driver != "bridge" || len(list[0].Attributes) == 0 {
		t.Errorf("%+v %v", list, err)
	}
	if _, err := json.Marshal(list); err != nil {
		t.Error(err)
	}
}

func TestErrorsOfADriver(t *testing.T) {
	d, err := newSet(t).Network(t.Context(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	n := testNetwork
	n.Options = map[string]string{"mtuu": "1"}
	_, err = d.CreateNetwork(t.Context(), n)
	var field *fault.Field
	if !errors.As(err, &field) || field.Given != "mtuu" || field.Nearest != "mtu" || fault.ClassOf(err) != fault.Invalid {
		t.Errorf("%#v", err)
	}
	n = testNetwork
	n.Options = map[string]string{"name": "lo"}
	if _, err = d.CreateNetwork(t.Context(), n); fault.ClassOf(err) != fault.Conflict || err.Error() != "interface lo is there and is no bridge" {
		t.Errorf("%v: %v", fault.ClassOf(err), err)
	}
	e := testEndpoint
	e.NetNS = "/proc/self/ns/uts"
	if _, err = d.Attach(t.Context(), testNetwork, e); fault.ClassOf(err) != fault.NotFound {
		t.Errorf("%v: %v", fault.ClassOf(err), err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.CreateNetwork(canceled, testNetwork); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRestartIsTold(t *testing.T) {
	s := newSet(t)
	told := make(chan string, 1)
	s.OnRestart(func(name string) { told <- name })
	if _, err := s.Schemas(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, _ := s.Plugins(t.Context())
	// Ours, started a moment ago and held by its handle in the host.
	p, err := os.FindProcess(list[0].Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case name := <-told:
		if name != "bridge" {
			t.Error(name)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
}

// An Attach with a published port and its Detach, over the connection.
func BenchmarkAttach(b *testing.B) {
	d, err := newSet(b).Network(b.Context(), "bridge")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := d.CreateNetwork(b.Context(), testNetwork); err != nil {
		b.Fatal(err)
	}
	defer d.DeleteNetwork(context.Background(), testNetwork) //nolint:errcheck // the test is over
	var attach, detach time.Duration
	for b.Loop() {
		b.StopTimer()
		ns, e := namespace(b), testEndpoint
		e.NetNS = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
		b.StartTimer()
		start := time.Now()
		if _, err := d.Attach(b.Context(), testNetwork, e); err != nil {
			b.Fatal(err)
		}
		attached := time.Now()
		if err := d.Detach(b.Context(), testNetwork, e); err != nil {
			b.Fatal(err)
		}
		attach, detach = attach+attached.Sub(start), detach+time.Since(attached)
	}
	b.ReportMetric(float64(attach.Microseconds())/float64(b.N), "µs/attach")
	b.ReportMetric(float64(detach.Microseconds())/float64(b.N), "µs/detach")
}
