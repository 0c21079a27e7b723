package main

import (
	"os/exec"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/fault"
)

func checkpointFlags(_ *program, f *pflag.FlagSet) action { return withoutCRIU("checkpoint", f) }
func restoreFlags(_ *program, f *pflag.FlagSet) action    { return withoutCRIU("restore", f) }

// withoutCRIU is the action of a verb that needs CRIU (criu.org). It takes runc's options, so that the
// error is about what is missing and not about an option.
func withoutCRIU(verb string, f *pflag.FlagSet) action {
	f.ParseErrorsAllowlist.UnknownFlags = true
	return func([]string) error {
		if _, err := exec.LookPath("criu"); err != nil {
			return fault.New(fault.Unavailable, "%s: CRIU is needed and not installed: criu: executable file not found in $PATH", verb)
		}
		return fault.New(fault.NotImplemented, "%s is not implemented, also with CRIU installed", verb)
	}
}
