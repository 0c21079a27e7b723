// Package hook runs the hooks of an OCI container (runtime-spec, config.md, "POSIX-platform Hooks").
package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/fault"
)

// maxOutput is how much of a failing hook's output its error shows.
const maxOutput = 1 << 10

// Validate reports what is wrong with the hooks of a kind.
func Validate(kind string, hooks []specs.Hook) error {
	for i, h := range hooks {
		field := fmt.Sprintf("hooks.%s[%d]", kind, i)
		if !strings.HasPrefix(h.Path, "/") {
			return &fault.Field{Field: field + ".path", Given: h.Path, Expected: "an absolute path"}
		}
		if h.Timeout != nil && *h.Timeout <= 0 {
			return &fault.Field{Field: field + ".timeout", Given: fmt.Sprint(*h.Timeout), Expected: "seconds, more than 0"}
		}
	}
	return nil
}

// Run runs the hooks one after the other, each with the state on its standard input, and stops at
// the first that fails or outlives its timeout.
func Run(ctx context.Context, kind string, hooks []specs.Hook, state specs.State) error {
	if len(hooks) == 0 {
		return nil
	}
	input, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("%s hook: %w", kind, err)
	}
	for i, h := range hooks {
		if err := run(ctx, h, input); err != nil {
			return fmt.Errorf("%s hook %d, %s: %w", kind, i, h.Path, err)
		}
	}
	return nil
}

func run(ctx context.Context, h specs.Hook, input []byte) error {
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(*h.Timeout)*time.Second, fmt.Errorf("no end after %d s", *h.Timeout))
		defer cancel()
	}
	var out tail
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args = h.Args
	if len(h.Args) == 0 {
		cmd.Args = []string{h.Path}
	}
	cmd.Env = h.Env
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would be our own
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &out
	cmd.WaitDelay = time.Second // a grandchild may hold the pipes
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // the hook itself has ended well
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	if err == nil || os.IsNotExist(err) || out.text() == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, out.text())
}

// tail keeps the end of what is written.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > maxOutput {
		t.buf = t.buf[len(t.buf)-maxOutput:]
	}
	return len(p), nil
}

// text is one line.
func (t *tail) text() string { return strings.Join(strings.Fields(string(t.buf)), " ") }
