package runtime

import (
	"errors"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/runtime/initproc"
)

// validateAttributes checks what a process has beside its identity, and that the host has the security
// module that it asks for. The process would fail too, but later.
func validateAttributes(p *specs.Process) error {
	var errs []error
	if p.Scheduler != nil {
		_, err := initproc.SchedAttr(p.Scheduler)
		errs = append(errs, err)
	}
	if p.IOPriority != nil {
		_, err := initproc.IOPriority(p.IOPriority)
		errs = append(errs, err)
	}
	if a := p.ExecCPUAffinity; a != nil {
		for field, list := range map[string]string{"process.execCPUAffinity.initial": a.Initial, "process.execCPUAffinity.final": a.Final} {
			if list != "" {
				_, err := initproc.CPUSet(field, list)
				errs = append(errs, err)
			}
		}
	}
	if p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined" && !hasAppArmor() {
		errs = append(errs, fault.New(fault.Invalid, "process.apparmorProfile %q: expected none: apparmor is not supported or not enabled on this host", p.ApparmorProfile))
	}
	if p.SelinuxLabel != "" && !hasSELinux() {
		errs = append(errs, fault.New(fault.Invalid, "process.selinuxLabel %q: expected none: selinux is not supported or not enabled on this host", p.SelinuxLabel))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// validateContainer checks the same of what belongs to the container.
func validateContainer(l *specs.Linux) error {
	if l.Personality != nil {
		if _, err := initproc.Personality(l.Personality); err != nil {
			return err
		}
	}
	if l.MemoryPolicy != nil {
		if _, _, err := initproc.MemoryPolicy(l.MemoryPolicy); err != nil {
			return err
		}
	}
	if l.MountLabel != "" && !hasSELinux() {
		return fault.New(fault.Invalid, "linux.mountLabel %q: expected none: selinux is not supported or not enabled on this host", l.MountLabel)
	}
	return validateRDT(l.IntelRdt)
}

// hasAppArmor reports whether the kernel confines by AppArmor.
func hasAppArmor() bool {
	on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(on), "Y")
}

// hasSELinux reports whether selinuxfs is mounted, which it is only with a kernel that has it enabled.
func hasSELinux() bool {
	var fs unix.Statfs_t
	for {
		err := unix.Statfs("/sys/fs/selinux", &fs)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && fs.Type == unix.SELINUX_MAGIC
		}
	}
}
