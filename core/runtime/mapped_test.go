package runtime

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// TestMappedLayers: with a user namespace layers keep on disk the ids that the container sees.
func TestMappedLayers(t *testing.T) {
	needRoot(t, "files are given to other users")
	needLinux63(t)
	needUserNamespaces(t)
	for _, joined := range []bool{false, true} {
		t.Run(fmt.Sprintf("joined=%v", joined), func(t *testing.T) {
			b := newBench(t)
			spec := shellSpec("cat /proc/self/uid_map | tr -s ' '; echo hi >/written; busybox chown 5:6 /written; busybox rm /layer/gone; touch /layer/new; stat -c %u:%g /written /layer /layer/mine")
			uids, gids := []linux.IDMapping{{Outside: 100000, Size: 65536}}, []linux.IDMapping{{Outside: 200000, Size: 65536}}
			user := specs.LinuxNamespace{Type: specs.UserNamespace}
			if joined {
				ns, err := linux.UserNamespace(uids, gids)
				if err != nil {
					t.Fatal(err)
				}
				defer ns.Close()
				user.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
			} else {
				spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
				spec.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: 200000, Size: 65536}}
			}
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, user)
			dir := b.bundle // rootfs is the lowest layer
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"/upper", "/work", "/lower/layer"} {
				must(os.MkdirAll(dir+name, 0o755))
			}
			must(os.WriteFile(dir+"/lower/layer/gone", nil, 0o644))
			must(os.WriteFile(dir+"/lower/layer/mine", nil, 0o644))
			must(os.Chown(dir+"/lower/layer/mine", 7, 8))
			overlay := mount.Mount{Type: "overlay", Source: "overlay", Target: "/", Layers: dir, Options: []string{
				"lowerdir=" + dir + "/lower:" + dir + "/rootfs", "upperdir=" + dir + "/upper", "workdir=" + dir + "/work",
			}}
			out, status := b.run(spec, func(o *CreateOptions) { o.RootMounts = []mount.Mount{overlay} })
			if want := " 0 100000 65536\n5:6\n0:0\n7:8"; strings.TrimSpace(out) != strings.TrimSpace(want) || status != 0 {
				t.Errorf("got %q, status %d, want %q", out, status, want)
			}
			for name, want := range map[string]uint32{"/written": 5, "/layer": 0, "/layer/new": 0, "/layer/gone": 0} {
				var st unix.Stat_t
				if err := unix.Lstat(dir+"/upper"+name, &st); err != nil || st.Uid != want {
					t.Errorf("%s is of %d on disk, %v, want %d", name, st.Uid, err, want)
				}
				if whiteout := st.Mode&unix.S_IFMT == unix.S_IFCHR; whiteout != (name == "/layer/gone") {
					t.Errorf("%s has mode %o", name, st.Mode)
				}
			}
		})
	}
}

// TestMountOfAnotherContainer binds what is mounted in another mount namespace alone.
func TestMountOfAnotherContainer(t *testing.T) {
	needRoot(t, "a mount is copied from another mount namespace")
	b := newBench(t)
	spec := shellSpec("sleep 1000")
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/shared", Type: "tmpfs", Source: "tmpfs"})
	donor, _, err := b.create(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := donor.Delete(context.Background(), true); err != nil {
			t.Error(err)
		}
	}()
	if err := donor.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := shellSpec("echo seen >/got/file; grep -c ' /got tmpfs ' /proc/mounts")
	second.Mounts = append(second.Mounts, specs.Mount{Destination: "/got", Type: "bind", Source: fmt.Sprintf("/proc/%d/root/shared", donor.Pid()), Options: []string{"rbind"}})
	if out, status := b.run(second); out != "1" || status != 0 {
		t.Errorf("got %q, status %d", out, status)
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/shared/file", donor.Pid())); err != nil || string(text) != "seen\n" {
		t.Errorf("the other container has %q, %v", text, err)
	}
}
