package container

import (
	"io"
	"time"

	"github.com/sampan-project/sampan/core/wire"
)

// RemoveOptions say how far Remove goes.
type RemoveOptions struct {
	Force   bool // kill it when it runs
	Volumes bool // remove its anonymous volumes too
	Link    bool // remove the link of that name, not the container
}

// ListOptions choose the rows of List.
type ListOptions struct {
	All     bool // also those that do not run
	Limit   int  // the last created, of any state; 0: no limit
	Size    bool // fill in SizeRw and SizeRootFs
	Brief   bool // only what a table shows: no labels, mounts and networks
	Filters map[string][]string
}

// LogOptions choose the lines of Logs.
type LogOptions struct {
	Stdout, Stderr bool
	Follow         bool
	Timestamps     bool
	Details        bool
	Since, Until   time.Time // zero: no bound
	Tail           int       // the last lines; -1: all
}

// AttachOptions choose the streams of Attach.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Logs                  bool // what was written before, first
	Stream                bool // what is written from now on
}

// Stream is the conversation with a process: its output framed by the monitor (Docker's eight-byte
// headers) unless it has a terminal, and its raw input.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite ends the input: the process reads the end of its stdin.
	CloseWrite() error
}

// CommitOptions say what image Commit makes.
type CommitOptions struct {
	Reference string // "" or name:tag
	Comment   string
	Author    string
	Pause     bool
	Changes   []string              // Dockerfile instructions, such as `ENV A=b`
	Config    *wire.ContainerConfig // over the container's own; nil: as it is
}
