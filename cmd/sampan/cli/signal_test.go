package cli

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is also the program that TestSignals sends signals to: it waits for its end, and passes
// signals on to nobody with TAKE=yes.
func TestMain(m *testing.M) {
	if os.Getenv("SIGNALS_OF_CLI") == "" {
		os.Exit(m.Run())
	}
	c := New(os.Stdin, os.Stdout, os.Stderr)
	ctx, stop := c.Interruptible(context.Background())
	defer stop()
	if os.Getenv("TAKE") == "yes" {
		taken := c.TakeSignals()
		taken.Hold()
		defer taken.Release()
	}
	os.Stdout.WriteString("ready\n") //nolint:errcheck // the test would wait for it
	<-ctx.Done()
	os.Exit(c.Code(Engine(ctx.Err())))
}

func TestSignals(t *testing.T) {
	for _, test := range []struct {
		name    string
		take    string
		signals []syscall.Signal
		code    int
		stderr  string
	}{
		{"interrupted", "", []syscall.Signal{syscall.SIGINT}, 130, ""},
		{"terminated", "", []syscall.Signal{syscall.SIGTERM}, 143, ""},
		{"passed on, and no end", "yes", []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGINT}, 1, "got 3 SIGTERM/SIGINTs, forcefully exiting\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), "SIGNALS_OF_CLI=yes", "TAKE="+test.take)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := stdout.Read(make([]byte, len("ready\n"))); err != nil {
				t.Error(err)
			}
			for _, s := range test.signals {
				if err := cmd.Process.Signal(s); err != nil {
					t.Error(err)
				}
				time.Sleep(20 * time.Millisecond) // two of a kind that wait are one
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != test.code || !strings.HasSuffix(stderr.String(), test.stderr) {
				t.Errorf("%d %q, want %d %q", code, stderr.String(), test.code, test.stderr)
			}
		})
	}
}
