package docker

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/fault"
)

// headerDelay is how long a followed log that has no line yet waits for an error before it answers
// that all is well. Clients wait for the header.
const headerDelay = 50 * time.Millisecond

func (c containers) logs(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	o := container.LogOptions{
		Stdout: q.Bool("stdout"), Stderr: q.Bool("stderr"), Follow: q.Bool("follow"),
		Timestamps: q.Bool("timestamps"), Details: q.Bool("details"),
		Since: q.Time("since"), Tail: -1,
	}
	if q.Text("until") != "0" { // docker-java's way to say that there is no bound
		o.Until = q.Time("until")
	}
	if tail := q.Text("tail"); tail != "" && tail != "all" {
		n, err := strconv.Atoi(tail)
		if err != nil {
			return &fault.Field{Field: "tail", Given: tail, Expected: `a number of lines, or "all"`}
		}
		o.Tail = max(n, -1) // any negative number means all
	}
	if err := q.Err(); err != nil {
		return err
	}
	if !o.Stdout && !o.Stderr {
		return fault.New(fault.Invalid, "Bad parameters: you must choose at least one stream")
	}
	tty, err := c.backend.TTY(r.Variable())
	if err != nil {
		return err
	}
	ctx, cancel := r.Stream()
	defer cancel()
	out := &logAnswer{w: w, contentType: streamType(tty, r.Version)}
	if o.Follow {
		timer := time.AfterFunc(headerDelay, out.begin)
		defer out.finish(timer)
	}
	if err = c.backend.Logs(ctx, r.Variable(), o, out); err == nil {
		out.begin()
		return nil
	}
	switch begun := out.close(); {
	case !begun:
		return err
	case ctx.Err() != nil: // the client went away, or the server stops
		return nil
	}
	return out.fail(err, tty)
}

// A logAnswer is an answer whose status is decided by what comes first: a line, an error, or the
// time after which silence means that all is well. Every line is sent at once.
type logAnswer struct {
	w           http.ResponseWriter
	contentType string

	mu     sync.Mutex
	begun  bool
	closed bool
}

// begin sends the header, if it was not sent.
func (a *logAnswer) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.header()
	if !a.closed {
		_ = http.NewResponseController(a.w).Flush()
	}
}

func (a *logAnswer) header() {
	if a.begun || a.closed {
		return
	}
	a.begun = true
	a.w.Header().Set("Content-Type", a.contentType)
	a.w.WriteHeader(http.StatusOK)
}

func (a *logAnswer) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.header()
	n, err := a.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(a.w).Flush()
}

// close stops the timer's begin from writing, and reports whether the answer had begun.
func (a *logAnswer) close() (begun bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	return a.begun
}

// finish makes sure that nothing touches the answer when the handler has returned.
func (a *logAnswer) finish(timer *time.Timer) {
	timer.Stop()
	a.close()
}

// fail says in the stream what broke it: a frame of Docker's third kind, for errors of the engine.
func (a *logAnswer) fail(cause error, tty bool) error {
	text := fmt.Sprintf("Error grabbing logs: %v\n", cause)
	if !tty {
		header := [8]byte{0: 3}
		binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
		text = string(header[:]) + text
	}
	_, err := io.WriteString(a.w, text)
	return err
}
