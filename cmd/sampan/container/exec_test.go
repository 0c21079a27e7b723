package container

import (
	"context"
	"errors"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/wire"
)

func TestExecExit(t *testing.T) {
	three := 3
	running, ended, lost := wire.ExecInspect{Running: true}, wire.ExecInspect{ExitCode: &three}, wire.ExecInspect{}
	for _, c := range []struct {
		name    string
		answers []wire.ExecInspect
		err     error
		code    int
		text    string
	}{
		{"known at once", []wire.ExecInspect{ended}, nil, 3, ""},
		{"known a moment later", []wire.ExecInspect{running, running, ended}, nil, 3, ""},
		{"not known", []wire.ExecInspect{lost}, nil, 125, "sampan: exec ended without a status"},
		{"the daemon is gone", []wire.ExecInspect{{}}, errors.New("connection refused"), 125, "sampan: ask for the exit status: connection refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inspect := func(context.Context, string) (wire.ExecInspect, error) {
				answer := c.answers[0]
				if len(c.answers) > 1 {
					c.answers = c.answers[1:]
				}
				return answer, c.err
			}
			err := execExit(t.Context(), inspect, "x")
			if code, text := cli.Code(err), cli.Message(err); code != c.code || text != c.text {
				t.Errorf("%d %q, want %d %q", code, text, c.code, c.text)
			}
		})
	}
}

// A wrong --env is a wrong command line to run, create and exec alike: their exit code for that is 125.
func TestWrongVariable(t *testing.T) {
	c := &cli.CLI{}
	for _, cmd := range []*cobra.Command{newRun(c), newCreate(c), newExec(c)} {
		for _, given := range []string{"", "=x"} {
			if err := cmd.ParseFlags([]string{"-e", given}); err == nil {
				t.Errorf("%s -e %q: no error", cmd.Name(), given)
			}
		}
		if err := cmd.ParseFlags([]string{"-e", "A", "-e", "B="}); err != nil {
			t.Errorf("%s: %v", cmd.Name(), err)
		}
	}
}
