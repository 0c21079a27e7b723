package runtime

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// An image declares a volume below /proc, or where a symlink leads there, and so gives the runtime a
// file of its own to write the security label to.
func TestCVE2019_16884(t *testing.T) {
	b := newBench(t)
	plant(t, b.bundle+"/rootfs", map[string]string{"label": "->/proc/self/attr", "deep/er": "->../label"})
	fake := volume(t, map[string]string{"self/attr/exec": "", "exec": "", "sys/x": ""})
	for name, c := range map[string]struct {
		mount  specs.Mount
		reason string
	}{
		"a directory over /proc":       {bind(fake, "/proc"), "expected a procfs"},
		"another filesystem over it":   {specs.Mount{Destination: "/proc", Type: "tmpfs", Source: "tmpfs"}, "expected type proc"},
		"over the label":               {bind(fake+"/exec", "/proc/self/attr/exec"), "inside /proc"},
		"by another name":              {bind(fake+"/exec", "/x/..//./proc/self/attr/exec"), "inside /proc"},
		"by a relative name":           {bind(fake+"/exec", "proc/self/attr/exec"), "inside /proc"},
		"by a symlink of the image":    {bind(fake+"/exec", "/label/exec"), "leads into /proc"},
		"by a symlink to that symlink": {bind(fake+"/exec", "/deep/er/exec"), "leads into /proc"},
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			spec := shellSpec("echo made")
			spec.Mounts = append(spec.Mounts, c.mount)
			b.refused(spec, c.reason)
		})
	}
	t.Run("the host's /proc may be there", func(t *testing.T) {
		b.t = t
		spec := shellSpec("echo made")
		spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
		spec.Mounts[0] = bind("/proc", "/proc")
		if out, err := b.attempt(spec); out != "made" || err != nil {
			t.Errorf("got %q, %v", out, err)
		}
	})
}

// The image's /proc is a symlink into a volume. The procfs would be mounted in the volume, where
// another container can move it away after it was checked.
func TestCVE2019_19921(t *testing.T) {
	b := newBench(t)
	plant(t, b.bundle+"/rootfs", map[string]string{"proc": "->/volume/proc"})
	shared := volume(t, map[string]string{"proc/self/attr/exec": ""})
	spec := shellSpec("echo made")
	spec.Mounts = slices.Insert(spec.Mounts, 0, bind(shared, "/volume"))
	b.refused(spec, "no symlink")
}

// The same for the fix of the former, which a later version had lost: /proc changes between a directory
// and a symlink while the container is made, so that a check before the mount proves nothing.
func TestCVE2023_27561(t *testing.T) {
	b := newBench(t)
	rootfs := filepath.Join(b.bundle, "rootfs")
	plant(t, rootfs, map[string]string{"decoy": "->/volume/fake", "proc/x": ""})
	shared := volume(t, map[string]string{"fake/x": ""})
	made := 0
	race(t, rootfs+"/proc", rootfs+"/decoy", func() {
		spec := shellSpec("")
		spec.Mounts = slices.Insert(spec.Mounts, 0, bind(shared, "/volume"))
		spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths, spec.Linux.Sysctl = nil, nil, nil
		c, _, err := b.create(spec)
		if err != nil {
			return // refused
		}
		made++
		mounts, err := os.ReadFile("/proc/" + strconv.Itoa(c.Pid()) + "/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(mounts), " /volume/fake ") {
			t.Error("procfs is mounted in the volume")
		}
		if err := c.Delete(t.Context(), true); err != nil {
			t.Error(err)
		}
	})
	if made == 0 {
		t.Error("no container was made: the race was not one")
	}
}

// With /proc or /sys a symlink of the image, what the runtime hides and makes read-only by those names
// is not where the container finds it.
func TestCVE2023_28642(t *testing.T) {
	for name, to := range map[string]string{
		"absolute": "/elsewhere", "relative": "elsewhere", "dangling": "/not/there", "to itself": "DEST", "by the other": "/etc/link", "the other filesystem": "/dev",
	} {
		for _, dest := range []string{"proc", "sys"} {
			t.Run(dest+" "+name, func(t *testing.T) {
				b := newBench(t)
				plant(t, b.bundle+"/rootfs", map[string]string{
					dest: "->" + strings.Replace(to, "DEST", "/"+dest, 1), "etc/link": "->/elsewhere", "elsewhere/x": "",
				})
				b.refused(shellSpec("echo made"), "no symlink")
			})
		}
	}
	t.Run("a parent", func(t *testing.T) {
		b := newBench(t)
		plant(t, b.bundle+"/rootfs", map[string]string{"chroot": "->/elsewhere", "elsewhere/proc/x": ""})
		spec := shellSpec("echo made")
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/chroot/proc", Type: "proc", Source: "proc"})
		b.refused(spec, "no symlink")
	})
}

// Two containers share a volume. One of them replaces a directory in it by a symlink to a directory of
// the host, and the mount of the other one lands there: what it then mounts from there is the host's.
func TestCVE2021_30465(t *testing.T) {
	b := newBench(t)
	outside := t.TempDir()
	plant(t, outside, map[string]string{"inner/x": ""})
	shared := volume(t, map[string]string{"swap/inner/x": "", "decoy": "->" + outside})
	payload := filepath.Join(t.TempDir(), "payload")
	plant(t, payload, map[string]string{"flag": "yes"})
	race(t, shared+"/swap", shared+"/decoy", func() {
		spec := shellSpec("grep -c /payload /proc/self/mountinfo")
		spec.Mounts = append(spec.Mounts, bind(shared, "/volume"), bind(payload, "/volume/swap/inner"))
		// A mount that is not in the container is one that has gone to the host's tree.
		if out, err := b.attempt(spec); err == nil && out != "1" {
			t.Errorf("the container has %s mounts of the payload, want 1", out)
		}
	})
}

// The same attack on the making of the mount's place: empty directories and files on the host.
func TestCVE2024_45310(t *testing.T) {
	b := newBench(t)
	for name, isFile := range map[string]bool{"directories": false, "a file": true} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			outside := t.TempDir()
			shared := volume(t, map[string]string{"swap/x": "", "decoy": "->" + outside, "source/file": ""})
			source := shared + "/source"
			if isFile {
				source += "/file"
			}
			tries := 0
			race(t, shared+"/swap", shared+"/decoy", func() {
				tries++ // a place that is to be made, each time
				spec := shellSpec("true")
				spec.Mounts = append(spec.Mounts, bind(shared, "/volume"), bind(source, "/volume/swap/"+strconv.Itoa(tries)+"/deep"))
				b.attempt(spec) //nolint:errcheck // refused or not, it stays inside
			})
			if made, err := os.ReadDir(outside); err != nil || len(made) > 0 {
				t.Errorf("%v is made on the host, %v", made, err)
			}
		})
	}
}

// The container's cgroups were writable for it though the spec says read-only, when it has no cgroup
// namespace.
func TestCVE2023_25809(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name    string
		private bool
		options []string
		want    string
	}{
		{"with a namespace", true, []string{"ro"}, ""},
		{"without a namespace", false, []string{"ro"}, ""},
		{"without a namespace, writable", false, nil, "written"}, // the attempt is one that works where it may
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want != "" {
				needCgroup(t)
			}
			b.t = t
			spec := shellSpec(`for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/evil && echo written; done 2>/dev/null | head -1
				2>/dev/null touch /sys/fs/cgroup/evil && echo written; for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
				test -e $f && (echo 1 >$f) 2>/dev/null && echo moved; done | head -1`)
			if !c.private {
				spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
			}
			at := slices.IndexFunc(spec.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
			spec.Mounts[at].Options = append([]string{"nosuid", "noexec", "nodev"}, c.options...)
			out, err := b.attempt(spec)
			if first, _, _ := strings.Cut(out, "\n"); err != nil || first != c.want {
				t.Errorf("got %q, %v; want %q", out, err, c.want)
			}
		})
	}
	// A user namespace cannot mount a sysfs of another's network namespace, and shows the host's: with
	// all that is mounted in it, which has to be read-only too.
	t.Run("in the host's sysfs", func(t *testing.T) {
		needUserNamespaces(t)
		b.t = t
		name := "sampan-evil-" + strconv.Itoa(os.Getpid())
		spec := shellSpec("for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/" + name + " && echo written; done 2>/dev/null; stat -f -c %T /sys")
		t.Cleanup(func() {
			made, _ := filepath.Glob("/sys/fs/cgroup/*/" + name) //nolint:errcheck // the pattern is right
			for _, dir := range append(made, "/sys/fs/cgroup/"+name) {
				os.Remove(dir) //nolint:errcheck // an empty cgroup
			}
		})
		spec.Linux.Sysctl = nil
		spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
			return n.Type == specs.CgroupNamespace || n.Type == specs.NetworkNamespace
		})
		spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
		if os.Geteuid() == 0 {
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 65536}}
			spec.Linux.GIDMappings = spec.Linux.UIDMappings
		}
		if out, err := b.attempt(spec); out != "sysfs" || err != nil {
			t.Errorf("got %q, %v; want a sysfs and nothing written", out, err)
		}
	})
}
