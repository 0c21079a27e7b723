package cgroup

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What would be written, on machines that need not be this one: file=value, with | between the names that a
// file has in different kernels.
func TestWhatIsWritten(t *testing.T) {
	controllers := []string{"cpu", "memory", "pids", "io", "hugetlb", "cpuset"}
	v2 := &host{all: []*hierarchy{{mount: "/v2", controllers: controllers, unified: true}}}
	v2.unified = v2.all[0]
	v1 := &host{all: []*hierarchy{{mount: "/v1", controllers: append([]string{"blkio"}, controllers...)}}}
	weight := uint16(444)
	device := specs.LinuxWeightDevice{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 7, Minor: 1}}
	device.Weight = &weight
	for _, c := range []struct {
		name   string
		r      specs.LinuxResources
		v1, v2 []string // nil: refused
	}{
		{"block weight", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: pointer64[uint16](750)}},
			[]string{"blkio.bfq.weight=750|blkio.weight=750"}, []string{"io.bfq.weight=750|io.weight=7475"}},
		{"weight of a device", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: pointer64[uint16](333), WeightDevice: []specs.LinuxWeightDevice{device}}},
			[]string{"blkio.bfq.weight=333|blkio.weight=333", "blkio.bfq.weight_device=7:1 444|blkio.weight_device=7:1 444"},
			[]string{"io.bfq.weight=333|io.weight=3263", "io.bfq.weight=7:1 444|io.weight=7:1 4384"}},
		{"idle", specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: pointer64[int64](1)}}, []string{"cpu.idle=1"}, []string{"cpu.idle=1"}},
		{"huge pages", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 2 << 20}}},
			[]string{"hugetlb.2MB.limit_in_bytes=2097152", "hugetlb.2MB.rsvd.limit_in_bytes=2097152"}, []string{"hugetlb.2MB.max=2097152", "hugetlb.2MB.rsvd.max=2097152"}},
		{"no limit of processes", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: pointer64[int64](-1)}}, []string{"pids.max=max"}, []string{"pids.max=max"}},
		{"a limit of no process", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: pointer64[int64](0)}}, []string{"pids.max=1"}, []string{"pids.max=1"}},
		{"several devices in one", specs.LinuxResources{Unified: map[string]string{"io.max": "7:1 riops=333 wiops=444\n7:2 riops=555\n"}},
			nil, []string{"io.max=7:1 riops=333 wiops=444", "io.max=7:2 riops=555"}},
		{"unified after the others", specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: pointer64[int64](33554432)}, CPU: &specs.LinuxCPU{Quota: pointer64[int64](40000), Period: pointer64[uint64](100000)},
			Unified: map[string]string{"cpu.max": "5000 50000"},
		}, nil, []string{"memory.max=33554432", "cpu.max=40000 100000", "cpu.max=5000 50000"}},
	} {
		for h, want := range map[*host][]string{v1: c.v1, v2: c.v2} {
			p, err := (&Manager{host: h, path: "/x"}).plan(&c.r)
			if want == nil {
				if err == nil {
					t.Errorf("%s with v1: expected an error", c.name)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			var got []string
			for _, s := range p.settings {
				var names []string
				for _, f := range s.files {
					names = append(names, f.name+"="+f.value)
				}
				got = append(got, strings.Join(names, "|"))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, unified %v: (-want +got)\n%s", c.name, h.pure(), diff)
			}
		}
	}
}

func TestDelegate(t *testing.T) {
	needRoot(t)
	h, err := thisHost()
	if err != nil || h.unified == nil || !slices.Contains(h.unified.controllers, "hugetlb") {
		t.Skip("needs the hugetlb controller in the unified hierarchy", err)
	}
	m := create(t, &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: math.MaxInt32 &^ (2<<20 - 1)}}}, Options{})
	if err := m.Delegate(4711); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]uint32{"": 4711, "/cgroup.procs": 4711, "/cgroup.subtree_control": 4711, "/hugetlb.2MB.max": 0} {
		dir := h.unified.mount + m.path + file
		if uid := ownerOf(t, dir); uid != want {
			t.Errorf("%q is of %d, expected %d", file, uid, want)
		}
	}
	f, err := m.Of(os.Getpid())
	if err != nil || f == nil {
		t.Fatal(f, err)
	}
	f.Close()
	if p := pressure(h.unified.mount + m.path + "/cpu.pressure"); p != nil && (p.Some.Avg10 < 0 || p.Some.Avg10 > 100) {
		t.Errorf("%+v", p)
	}
}

func TestPressure(t *testing.T) {
	name := t.TempDir() + "/cpu.pressure"
	if err := os.WriteFile(name, []byte("some avg10=1.50 avg60=2.00 avg300=0.25 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\nnew x=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Pressure{Some: Stall{1.5, 2, 0.25, 123}, Full: Stall{Total: 7}}, pressure(name)); diff != "" {
		t.Error(diff)
	}
	if p := pressure(name + "x"); p != nil {
		t.Errorf("%+v of nothing", p)
	}
}

func ownerOf(t *testing.T, name string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid
}
