package registry

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/fault"
)

// program is what serves.
const program = "sampan-registry"

// execute becomes the program with the options that were given here. It is beside this executable, or in PATH.
func execute(cmd *cobra.Command, args []string, _ any) error {
	path := ""
	if self, err := os.Executable(); err == nil {
		path = filepath.Join(filepath.Dir(self), program)
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		if path, err = exec.LookPath(program); err != nil {
			return fault.New(fault.NotFound, "%s is neither beside sampan nor in PATH", program)
		}
	}
	line := arguments(cmd, args)
	if err := syscall.Exec(path, line, os.Environ()); err != nil {
		return fault.New(fault.Internal, "execute %s: %w", path, err)
	}
	return nil
}

// arguments is the command line for the program.
func arguments(cmd *cobra.Command, args []string) []string {
	line := []string{program}
	_, words, _ := strings.Cut(cmd.CommandPath(), " registry ")
	line = append(line, strings.Fields(words)...)
	cmd.Flags().Visit(func(f *pflag.Flag) { line = append(line, "--"+f.Name+"="+f.Value.String()) })
	return append(append(line, "--"), args...)
}
