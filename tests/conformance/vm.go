package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// inVM are the limits in the virtual machine, whose processor is emulated where there is no other way:
// executing a program then takes some fifty times as long.
const (
	vmTimeout  = "3000" // seconds for all programs
	vmProgram  = "3m"   // for one run of one
	vmRuntimes = "runc=/usr/sbin/runc"
	vmPackages = "runc"
)

// ship puts this program and our runtime beside the suite, which the virtual machine is given.
func (s *suite) ship(sides []side) error {
	dir := s.vmDir()
	if err := os.MkdirAll(dir, 0o777); err != nil { //nolint:gosec // an ordinary user of the virtual machine writes there
		return err
	}
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // as above, whatever the umask is
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	files := map[string]string{"conformance": self}
	for _, side := range sides {
		if side.name == ours {
			files["sampan-runtime"] = side.program
		}
	}
	for name, from := range files {
		if err := copyProgram(filepath.Join(dir, name), from); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) vmDir() string { return filepath.Join(s.dir, "vm") }

// runInVM runs this program in the virtual machine, which leaves what came out in USER.json.
func (s *suite) runInVM(ctx context.Context, boot, user string) error {
	outcome := filepath.Join(s.vmDir(), user+".json")
	if err := os.Remove(outcome); err != nil && !os.IsNotExist(err) {
		return err
	}
	cmd := exec.CommandContext(ctx, boot, append([]string{
		"--user", user, "--env", labelVar + "=" + user, "--share", s.dir + ":/suite", "--timeout", vmTimeout, "--",
		"/suite/vm/conformance", "-dir", "/suite", "-outcome", "/suite/vm/" + user + ".json", "-timeout", vmProgram,
		"-runtimes", vmRuntimes + " ours=/suite/vm/sampan-runtime",
	}, s.programs...)...)
	cmd.Env = append(os.Environ(), "VM_PACKAGES="+vmPackages)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(boot), err)
	}
	_, err := os.Stat(outcome)
	return err
}

func copyProgram(to, from string) (err error) {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
		return err
	}
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755) //nolint:gosec // it is executed
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if e := w.Close(); err == nil {
		err = e
	}
	return err
}
