package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sampan-project/sampan/core/client"
)

// Exit codes beside the container's own (the same as Docker's).
const (
	CodeFailed    = 1   // the command failed
	CodeUsage     = 64  // a template that cannot be read, where Docker says so: EX_USAGE of sysexits.h
	CodeEngine    = 125 // run, create, exec: the engine failed, or an option is wrong
	CodeCannotRun = 126 // the container's command cannot be run
	CodeNotFound  = 127 // the container's command is not there
	CodeInterrupt = 130 // the user pressed Ctrl-C
)

// Exit is an error with an exit code of its own. Err nil prints nothing.
type Exit struct {
	Code int
	Err  error
}

func (e *Exit) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *Exit) Unwrap() error { return e.Err }

// Usage is a command line that is wrong; Command is the one whose --help tells more.
type Usage struct {
	Command string // "sampan run"
	Err     error
}

func (e *Usage) Error() string { return e.Err.Error() }
func (e *Usage) Unwrap() error { return e.Err }

// Code returns the exit code for err.
func Code(err error) int {
	var exit *Exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	case errors.Is(err, context.Canceled):
		return CodeInterrupt
	}
	return CodeFailed
}

// Message returns what is printed for err, one line per failure and "" for silence: the daemon's own
// words are marked as such, the program's name stands before its own.
func Message(err error) string {
	if err == nil {
		return ""
	}
	var exit *Exit
	if errors.As(err, &exit) {
		if exit.Err == nil {
			return ""
		}
		err = exit.Err
	}
	if errors.Is(err, context.Canceled) {
		return ""
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // of errors.Join itself, not of something below it
		parts := make([]string, 0, 4)
		for _, e := range many.Unwrap() {
			parts = append(parts, Message(e))
		}
		return strings.Join(parts, "\n")
	}
	var usage *Usage
	if errors.As(err, &usage) {
		return fmt.Sprintf("sampan: %v\nSee '%s --help'.", usage.Err, usage.Command)
	}
	if fromDaemon(err) {
		return "Error response from daemon: " + oneLine(err)
	}
	return "sampan: " + oneLine(err)
}

// fromDaemon reports that err is the daemon's message and nothing else.
func fromDaemon(err error) bool {
	var status *client.StatusError
	return errors.As(err, &status) && err.Error() == status.Error()
}

func oneLine(err error) string {
	return Printable(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
}

// Engine gives an error of the engine, or of an option, the exit code that run, create and exec
// owe it: 127 and 126 where the container's command is to blame, else 125.
func Engine(err error) error {
	if err == nil {
		return nil
	}
	var exit *Exit
	if errors.As(err, &exit) {
		return err
	}
	code, text := CodeEngine, err.Error()
	switch {
	case errors.Is(err, context.Canceled):
		code = CodeInterrupt
	case !fromDaemon(err):
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		code = CodeNotFound
	case strings.Contains(text, "permission denied"), strings.Contains(text, "is a directory"):
		code = CodeCannotRun
	}
	return &Exit{Code: code, Err: err}
}

// ContainerExit is the error for a container that ended with code: silent, nil for 0.
func ContainerExit(code int) error {
	if code == 0 {
		return nil
	}
	return &Exit{Code: code}
}
