package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// What a person sees, a line per message, in the form that BuildKit's plain progress made known:
//
//	#2 [2/4] RUN /bin/sh -c make
//	#2 0.412 cc -o app app.c
//	#2 DONE 1.2s
//
// Step numbers are in the order of beginning; [2/4] counts the steps of the whole build.
type printer struct {
	mu    sync.Mutex
	send  func(wire.Message)
	steps int
	total int
}

func newPrinter(send func(wire.Message)) *printer {
	if send == nil {
		send = func(wire.Message) {}
	}
	return &printer{send: send}
}

func (p *printer) print(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.send(wire.Message{Stream: fmt.Sprintf(format, args...)})
}

// finished tells the result of a whole build.
func (p *printer) finished(id digest.Digest, tags []string) {
	p.print("image %s\n", id)
	for _, tag := range tags {
		p.print("naming to %s\n", printable(tag, 300))
	}
}

// stepLine is one step as one build shows it.
type stepLine struct {
	p     *printer
	n     int
	began time.Time
	rest  []byte // output that is no whole line yet
}

// maxTitle bounds how much of a command is repeated in headings and messages, maxHistory in the history
// of an image.
const (
	maxHeading = 120
	maxTitle   = 400
	maxHistory = 16 << 10
)

func (p *printer) step(title string) *stepLine {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps++
	l := &stepLine{p: p, n: p.steps, began: time.Now()}
	p.send(wire.Message{Stream: fmt.Sprintf("#%d [%d/%d] %s\n", l.n, l.n, p.total, printable(title, maxHeading))})
	return l
}

func (l *stepLine) cached() { l.p.print("#%d CACHED\n", l.n) }

func (l *stepLine) end(err error) {
	if fault.Is(err, fault.Canceled) {
		l.p.print("#%d CANCELED\n", l.n)
		return
	}
	if err != nil {
		l.p.print("#%d ERROR: %s\n", l.n, printable(err.Error(), 1000))
		return
	}
	l.p.print("#%d DONE %.1fs\n", l.n, time.Since(l.began).Seconds())
}

// pulled shows a pull's states, without its bars.
func (l *stepLine) pulled(m wire.Message) {
	if m.ProgressDetail != nil && (m.ProgressDetail.Current > 0 || m.ProgressDetail.Total > 0) || m.Status == "" {
		return
	}
	text := m.Status
	if m.ID != "" {
		text = m.ID + ": " + text
	}
	l.p.print("#%d %s\n", l.n, printable(text, maxTitle))
}

// maxLine is where a line of output without an end is broken.
const maxLine = 32 << 10

// follow prints a step's output until the step ends, or ctx.
func (l *stepLine) follow(ctx context.Context, log *stepLog) {
	for at := 0; ; {
		chunk, more := log.from(at)
		at += len(chunk)
		l.output(log.began, chunk)
		if len(chunk) > 0 {
			continue
		}
		if more == nil {
			break
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
	if len(l.rest) > 0 {
		l.output(log.began, []byte("\n"))
	}
}

func (l *stepLine) output(began time.Time, p []byte) {
	var b strings.Builder
	for len(p) > 0 {
		line, after, ended := bytes.Cut(p, []byte("\n"))
		if room := maxLine - len(l.rest); len(line) > room {
			line, after, ended = p[:room], p[room:], true
		}
		l.rest = append(l.rest, line...)
		p = after
		if !ended {
			break
		}
		fmt.Fprintf(&b, "#%d %.3f %s\n", l.n, time.Since(began).Seconds(), bytes.TrimSuffix(l.rest, []byte("\r")))
		l.rest = l.rest[:0]
	}
	if b.Len() > 0 {
		l.p.print("%s", b.String())
	}
}

// maxOutput bounds what is kept, and so shown, of a step's output.
const maxOutput = 2 << 20

// stepLog is a running step's output, for any number of builds that follow it. Writers never wait
// for readers: what comes after the first two MiB is left out.
type stepLog struct {
	began time.Time

	mu      sync.Mutex
	data    []byte
	clipped bool
	closed  bool
	more    chan struct{} // closed at the next change
}

func newStepLog() *stepLog { return &stepLog{began: time.Now(), more: make(chan struct{})} }

var _ io.Writer = (*stepLog)(nil)

// Write adds output. It never fails.
func (l *stepLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	if l.clipped || l.closed {
		return n, nil
	}
	if len(l.data)+n > maxOutput {
		l.clipped = true
		p = append(p[:maxOutput-len(l.data):maxOutput-len(l.data)], fmt.Sprintf("\n[output clipped, it is longer than %d bytes]\n", maxOutput)...)
	}
	l.data = append(l.data, p...)
	l.changed()
	return n, nil
}

func (l *stepLog) changed() {
	close(l.more)
	l.more = make(chan struct{})
}

func (l *stepLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.changed()
}

// from returns the output after the first at bytes, and a channel that is closed when there may be
// more: nil at the end.
func (l *stepLog) from(at int) ([]byte, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.data[at:], nil
	}
	return l.data[at:], l.more
}
