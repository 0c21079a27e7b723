package initproc

import (
	"errors"
	"fmt"
	"io/fs"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// keyring joins a session keyring of the container, which under SELinux has the label of its processes
// (proc_pid_attr(5), keycreate), or they could not use it.
func (p *process) keyring() error {
	if label := p.Spec.Process.SelinuxLabel; label != "" {
		if err := p.write("thread-self/attr/keycreate", label); err != nil {
			return fmt.Errorf("process.selinuxLabel %q: label of the session keyring: %w", label, err)
		}
		defer p.write("thread-self/attr/keycreate", "") //nolint:errcheck // it is about later keyrings alone
	}
	if _, err := unix.KeyctlJoinSessionKeyring("_ses." + p.State.ID); err != nil && !errors.Is(err, unix.ENOSYS) {
		p.parent.warn("session keyring: %v", err)
	}
	return nil
}

// label sets the security label that the program will run with.
func (p *process) label(spec *specs.Process) error {
	if spec.ApparmorProfile != "" && spec.ApparmorProfile != "unconfined" {
		err := p.write("thread-self/attr/apparmor/exec", "exec "+spec.ApparmorProfile)
		if errors.Is(err, fs.ErrNotExist) {
			err = p.write("thread-self/attr/exec", "exec "+spec.ApparmorProfile)
		}
		if err != nil {
			return fmt.Errorf("process.apparmorProfile %q: %w", spec.ApparmorProfile, err)
		}
	}
	if spec.SelinuxLabel != "" {
		if err := p.write("thread-self/attr/exec", spec.SelinuxLabel); err != nil {
			return fmt.Errorf("process.selinuxLabel %q: %w", spec.SelinuxLabel, err)
		}
	}
	return nil
}
