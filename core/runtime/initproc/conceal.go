package initproc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// context ends with the process.
func (p *process) context() context.Context { return context.Background() }

// conceal makes the spec's paths read-only or hides them. A path that is not there is left.
func (p *process) conceal() error {
	defer func() {
		if p.shown != nil && p.shown != p.proc {
			p.shown.Close()
		}
		p.shown = nil
	}()
	for _, name := range p.Spec.Linux.ReadonlyPaths {
		if err := p.readonly(name); err != nil {
			return fmt.Errorf("linux.readonlyPaths: %s: %w", name, err)
		}
	}
	if len(p.Spec.Linux.MaskedPaths) == 0 {
		return nil
	}
	null, err := p.null()
	if err != nil {
		return fmt.Errorf("linux.maskedPaths: %w", err)
	}
	defer null.Close()
	var empty *os.File // one empty filesystem hides every directory
	defer func() {
		if empty != nil {
			empty.Close()
		}
	}()
	for i, name := range p.Spec.Linux.MaskedPaths {
		if slices.Contains(p.Spec.Linux.MaskedPaths[:i], name) {
			continue // another mount on top would hide no more
		}
		if err := p.mask(name, null, &empty); err != nil {
			return fmt.Errorf("linux.maskedPaths: %s: %w", name, err)
		}
	}
	return nil
}

// toConceal opens a path that is to be covered. What is below /proc is looked up in the procfs that was
// mounted there: whoever else can write to the root filesystem at this moment could put another directory
// at /proc, and what is covered would not be what the container sees (CVE-2025-31133).
func (p *process) toConceal(name string) (*os.File, error) {
	if below, ok := strings.CutPrefix(path.Clean(name), "/proc/"); ok && p.shown != nil {
		return linux.NewRoot(p.shown).Open(below, unix.O_PATH, 0)
	}
	return p.root.Open(name, unix.O_PATH, 0)
}

func (p *process) readonly(name string) error {
	at, err := p.toConceal(name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer at.Close()
	mnt, err := linux.CloneTree(at, "", true)
	if err != nil {
		return err
	}
	defer mnt.Close()
	if err := linux.SetMount(mnt, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, true); err != nil {
		return err
	}
	return linux.MoveMount(mnt, at)
}

// mask puts the null device over a file and an empty read-only filesystem over a directory.
func (p *process) mask(name string, null *os.File, empty **os.File) error {
	at, err := p.toConceal(name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer at.Close()
	dir, err := linux.IsDir(at)
	if err != nil {
		return err
	}
	source := null
	if dir {
		if *empty == nil {
			if *empty, err = emptyFilesystem(); err != nil {
				return err
			}
		}
		source = *empty
	}
	mnt, err := linux.CloneTree(source, "", false)
	if errors.Is(err, unix.EINVAL) && dir {
		// Before Linux 6.15 only an attached mount can be cloned: one of its own, then.
		mnt, err = emptyFilesystem()
	}
	if err != nil {
		return err
	}
	defer mnt.Close()
	return linux.MoveMount(mnt, at)
}

func emptyFilesystem() (*os.File, error) {
	tmpfs, err := linux.NewFilesystem("tmpfs")
	if err != nil {
		return nil, err
	}
	defer tmpfs.Close()
	for _, o := range [][2]string{{"nr_blocks", "1"}, {"nr_inodes", "1"}, {"mode", "555"}} {
		if err := tmpfs.SetString(o[0], o[1]); err != nil {
			return nil, err
		}
	}
	return tmpfs.Mount(unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
}

// gone reports whether a path leads nowhere.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// procfs is a procfs of this process's pid namespace that nobody else can have tampered with: the
// one mounted for the container, or one that is attached nowhere (CVE-2025-52881).
func (p *process) procfs() (*os.File, error) {
	if p.proc != nil {
		return p.proc, nil
	}
	proc, err := linux.NewFilesystem("proc")
	if err == nil {
		defer proc.Close()
		p.proc, err = proc.Mount(0)
	}
	if errors.Is(err, unix.EPERM) {
		p.proc, err = existingProc()
	}
	return p.proc, err
}

// write writes to a file of procfs.
func (p *process) write(name, value string) error {
	proc, err := p.procfs()
	if err != nil {
		return err
	}
	// A mount over the file, or on the way to it, would redirect the value: also to another file of a
	// procfs, where it may do harm (CVE-2025-52881).
	f, err := linux.NewRoot(proc).OpenOne(name, unix.O_WRONLY, 0)
	if errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("/proc/%s: something is mounted over it: %w", name, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if ok, err := linux.IsFilesystem(f, unix.PROC_SUPER_MAGIC); err != nil || !ok {
		return fmt.Errorf("/proc/%s is not in a procfs", name)
	}
	_, err = f.WriteString(value)
	return err
}

// sysctls sets kernel parameters of the container's namespaces.
func (p *process) sysctls() error {
	for _, key := range sorted(p.Spec.Linux.Sysctl) {
		value := p.Spec.Linux.Sysctl[key]
		if err := p.write("sys/"+sysctlPath(key), value); err != nil {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return &fault.Field{Field: "sysctl", Given: key, Expected: "a parameter that this kernel has"}
			case errors.Is(err, unix.EINVAL):
				return &fault.Field{Field: "sysctl " + key, Given: value, Expected: "a value that the kernel accepts"}
			}
			return fmt.Errorf("sysctl %s=%s: %w", key, value, err)
		}
	}
	return nil
}

// sysctlPath turns a name into a path: the first separator says which one is meant (sysctl.d(5)),
// so that net/ipv4/conf/eth0.1/forwarding can be written.
func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return key
	}
	return strings.ReplaceAll(key, ".", "/")
}
