package protocol

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sampan-project/sampan/core/fault"
)

// The verbs.
const (
	Hello      = "hello"
	Create     = "create"
	Start      = "start"
	Kill       = "kill"
	Delete     = "delete"
	Exec       = "exec"
	DeleteExec = "delete-exec"
	Attach     = "attach"
	Resize     = "resize"
	Wait       = "wait"
	Pause      = "pause"
	Resume     = "resume"
	Update     = "update"
	Stats      = "stats"
	Pids       = "pids"
	Forward    = "forward"
	List       = "list"
	Watch      = "watch"
	Shutdown   = "shutdown"
	Cancel     = "cancel"
)

// Request is the body of a frame to the monitor. Args are the verb's own: one of the types
// below, or of package monitor.
type Request struct {
	Verb string          `json:"verb"`
	ID   string          `json:"id,omitempty"`   // the container
	Exec string          `json:"exec,omitempty"` // the exec process in it, "" for the container itself
	Args json.RawMessage `json:"args,omitempty"`
}

// HelloArgs and HelloResult compare versions.
type HelloArgs struct {
	Version int `json:"version"`
}

// HelloResult is the monitor's side of it.
type HelloResult struct {
	Version int `json:"version"`
	Pid     int `json:"pid"`
}

// KillArgs are Kill's.
type KillArgs struct {
	Signal int  `json:"signal"`
	All    bool `json:"all,omitempty"`
}

// DeleteArgs are Delete's.
type DeleteArgs struct {
	Force bool `json:"force,omitempty"`
	Later bool `json:"later,omitempty"` // the answer does not wait for the cgroup's end
}

// ResizeArgs are Resize's.
type ResizeArgs struct {
	Height uint16 `json:"height"`
	Width  uint16 `json:"width"`
}

// Response is the body of a frame from the monitor.
type Response struct {
	Error  *Error          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// Error carries an error with its class.
type Error struct {
	Class fault.Class  `json:"class"`
	Text  string       `json:"text"`
	Field *fault.Field `json:"field,omitempty"`
}

// ErrorOf returns what is sent for err.
func ErrorOf(err error) *Error {
	if err == nil {
		return nil
	}
	e := &Error{Class: fault.ClassOf(err), Text: err.Error()}
	var f *fault.Field
	if errors.As(err, &f) {
		e.Field = f
	}
	return e
}

// Err returns the error that was sent: same class, same text, and the same Field in its chain.
func (e *Error) Err() error {
	switch {
	case e == nil:
		return nil
	case e.Field != nil:
		return fault.As(e.Class, &fieldError{e.Text, e.Field})
	}
	return fault.New(e.Class, "%s", e.Text)
}

// fieldError has the text of the whole chain and the Field at its end.
type fieldError struct {
	text  string
	field *fault.Field
}

func (e *fieldError) Error() string { return e.text }
func (e *fieldError) Unwrap() error { return e.field }

// Decode decodes JSON that came from the other side.
func Decode(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fault.New(fault.Invalid, "message of the monitor's protocol: %w", err)
	}
	return nil
}

// Encode encodes v, which must be one of the protocol's types.
func Encode(v any) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("message of the monitor's protocol: %w", err)
	}
	return data, nil
}
