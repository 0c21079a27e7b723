package external

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// call is one execution of the runtime.
type call struct {
	verb  string
	args  []string
	input []byte // for the verb's stdin; nil: stdin
	// The streams, which create and exec pass on to the process they make; nil: /dev/null, and for output
	// what run returns.
	stdin, stdout, stderr *os.File
	// around calls start where the runtime is to be; nil: here.
	around func(start func() error) error
}

// maxOutput bounds what is read of a runtime's output and log: a program with --debug writes much.
const maxOutput = 1 << 20

// run calls the runtime and waits for its end. What it wrote to stdout is returned, and what it says of an
// error is the error. A ctx that ends kills it.
func (c *Container) run(ctx context.Context, v call) (output []byte, err error) {
	dir, err := os.MkdirTemp(c.dir, "call-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	log := filepath.Join(dir, "log")
	args := append([]string{}, c.record.Command.Args...)
	args = append(args, "--root", c.file(stateDir), "--log", log, "--log-format", "json")
	if c.record.SystemdCgroup {
		args = append(args, "--systemd-cgroup")
	}
	cmd := exec.CommandContext(ctx, c.record.Command.Path, append(append(args, v.verb), v.args...)...)
	cmd.Dir, cmd.Env = c.dir, []string{"PATH=" + os.Getenv("PATH")}
	// Files, not Go's pipes, which would be waited for as long as a process of the container has them.
	own, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return nil, err
	}
	defer own.Close()
	streams := [2]*os.File{own, own}
	if v.stdout != nil {
		streams[0] = v.stdout
	}
	if v.stderr != nil {
		streams[1] = v.stderr
	}
	cmd.Stdout, cmd.Stderr = streams[0], streams[1]
	switch {
	case v.input != nil:
		cmd.Stdin = bytes.NewReader(v.input)
	case v.stdin != nil:
		cmd.Stdin = v.stdin
	}
	start := cmd.Start
	if v.around != nil {
		start = func() error { return v.around(cmd.Start) }
	}
	if err := start(); err != nil {
		return nil, c.unstarted(err)
	}
	err = cmd.Wait()
	text, readErr := readSome(own)
	if err == nil {
		return text, readErr
	}
	return nil, c.explain(ctx, v.verb, err, log, text)
}

// unstarted is the error of a program that cannot be executed. It has not the words by which clients know that
// the container's own program is missing.
func (c *Container) unstarted(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.Unavailable, "runtime %s: program %s: not found", c.record.Command.Name, c.record.Command.Path)
	}
	return fmt.Errorf("runtime %s: %w", c.record.Command.Name, err)
}

// explain is the error of a runtime that has ended with one: what it wrote last of it, in Docker's frame.
func (c *Container) explain(ctx context.Context, verb string, err error, log string, output []byte) error {
	if ctx.Err() != nil {
		return fmt.Errorf("runtime %s: %s: %w", c.record.Command.Name, verb, context.Cause(ctx))
	}
	said := ""
	if f, err := os.Open(log); err == nil {
		text, err := readSome(f)
		if err == nil {
			said = lastError(text)
		}
		f.Close()
	}
	if said == "" {
		lines := strings.Split(strings.TrimSpace(string(output)), "\n")
		said = lines[len(lines)-1]
	}
	if said == "" {
		said = err.Error()
	}
	return fault.New(fault.Internal, "OCI runtime %s failed: %.4096s", verb, strings.ReplaceAll(said, "\n", " "))
}

// lastError is the last error in a log in JSON, by the names of logrus, which runc, crun and others write.
func lastError(log []byte) (said string) {
	for line := range bytes.Lines(log) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") {
			said = entry.Msg
		}
	}
	return said
}

// readSome reads the end of a file, where it is long.
func readSome(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, st.Size()-maxOutput), maxOutput))
}
