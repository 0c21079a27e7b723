package runtime

import (
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup"
)

// A container that sees its cgroup writable makes others below and hands processes to them, and cannot
// lift its own limits: the kernel refuses that with nsdelegate (cgroups(7)).
func TestDelegation(t *testing.T) {
	b := newBench(t)
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if unified, err := cgroup.Unified(); err != nil || !unified || !strings.Contains(string(mounts), "nsdelegate") {
		t.Skipf("needs cgroup v2 alone, mounted with nsdelegate; %v", err)
	}
	needCgroup(t)
	spec := shellSpec(`cd /sys/fs/cgroup; mkdir sub && echo made
		echo max 2>/dev/null >pids.max || echo refused
		echo $$ >sub/cgroup.procs; cat /proc/self/cgroup; cat pids.max`)
	limit := int64(50)
	spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
	at := slices.IndexFunc(spec.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
	spec.Mounts[at].Options = []string{"nosuid", "noexec", "nodev"}
	if out, status := b.run(spec); out != "made\nrefused\n0::/sub\n50" || status != 0 {
		t.Errorf("got %q, status %d", out, status)
	}
}
