package plugin

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	pluginv1 "github.com/sampan-project/sampan/proto/sampan/plugin/v1"
)

// Plugin is one program. Its methods may be called in parallel.
type Plugin struct {
	Kind, Name, Path string

	host   *Host
	digest []byte

	mu       sync.Mutex
	proc     *process
	starting chan struct{} // closed when the start that is going on ended
	failures int           // in a row: starts that failed, lives that were short
	notUntil time.Time     // the breaker: no start before
	err      error         // why it does not run
	ran      bool          // it has run before
	closed   bool
}

// State of a plugin, as GET /sampan/v1/plugins shows it.
type State string

// The states.
const (
	Idle    State = "idle"    // not needed yet
	Running State = "running" // answers
	Failed  State = "failed"  // ended or did not start; Status.Err says why
)

// Status is what is known of a plugin without asking it.
type Status struct {
	State   State
	Pid     int
	Version string // "" until it has run
	Err     error
}

func newPlugin(h *Host, kind, name, path string, digest []byte) *Plugin {
	return &Plugin{Kind: kind, Name: name, Path: path, host: h, digest: digest}
}

// String is the plugin's name in messages: "network driver bridge".
func (p *Plugin) String() string { return p.Kind + " driver " + p.Name }

// Digest is the checksum that was pinned when the program was found, as "sha256:...".
func (p *Plugin) Digest() string { return "sha256:" + hex.EncodeToString(p.digest) }

// Status says how the plugin is. It never waits.
func (p *Plugin) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.proc != nil:
		return Status{State: Running, Pid: p.proc.pid, Version: p.proc.description.GetVersion()}
	case p.err != nil:
		return Status{State: Failed, Err: p.err}
	}
	return Status{State: Idle}
}

// Describe returns what the plugin says of itself, and starts it for that when it must.
func (p *Plugin) Describe(ctx context.Context) (*pluginv1.DescribeResponse, error) {
	proc, err := p.running(ctx)
	if err != nil {
		return nil, err
	}
	return proc.description, nil
}

const (
	shortLife   = 30 * time.Second // a life that was longer clears the failures before it
	firstPause  = 100 * time.Millisecond
	longestWait = 30 * time.Second
)

// pause is how long to wait after so many failures in a row: nothing after the first.
func pause(failures int) time.Duration {
	if failures <= 1 {
		return 0
	}
	return min(longestWait, firstPause<<min(failures-2, 16))
}

// breakerPatience is how long a caller waits for a start that the breaker holds back.
const breakerPatience = 2 * time.Second

// running returns the process, starting it when it is allowed to. While the breaker stays open for
// longer than patience it fails at once.
func (p *Plugin) running(ctx context.Context) (*process, error) {
	patience := time.Now().Add(breakerPatience)
	for {
		p.mu.Lock()
		switch {
		case p.closed:
			p.mu.Unlock()
			return nil, fault.New(fault.Unavailable, "%s: the engine is ending", p)
		case p.proc != nil && p.proc.dead():
			noticed := p.proc.noticed
			p.mu.Unlock()
			<-noticed // by watch, at once
			continue
		case p.proc != nil:
			defer p.mu.Unlock()
			return p.proc, nil
		case p.starting == nil && time.Now().Before(p.notUntil) && p.notUntil.Before(patience):
			wait := time.Until(p.notUntil)
			p.mu.Unlock()
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("%s is starting again: %w", p, ctx.Err())
			case <-time.After(wait):
			}
			continue
		case p.starting == nil && time.Now().Before(p.notUntil):
			defer p.mu.Unlock()
			return nil, fault.New(fault.Unavailable, "%s is not there: %w; next start in %v", p, p.err,
				time.Until(p.notUntil).Round(100*time.Millisecond))
		case p.starting == nil:
			p.starting = make(chan struct{})
			go p.start(p.starting)
		}
		starting := p.starting
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is starting: %w", p, ctx.Err())
		case <-starting:
		}
		p.mu.Lock()
		proc, err := p.proc, p.err
		p.mu.Unlock()
		if proc != nil {
			return proc, nil
		}
		if err != nil {
			return nil, fault.New(fault.Unavailable, "%s does not start: %w", p, err)
		}
	}
}

// start makes one attempt. It runs on its own, so that a caller who gives up stops nothing.
func (p *Plugin) start(done chan struct{}) {
	proc, err := launch(p)

	p.mu.Lock()
	again := false
	switch {
	case err != nil:
		p.failures++
		p.err = err
		p.notUntil = time.Now().Add(pause(p.failures + 1))
		p.host.o.Logger.Error("plugin does not start", "plugin", p.String(), "failures", p.failures, "error", err)
	case p.closed:
		go proc.end()
	default:
		p.proc, p.err = proc, nil
		again, p.ran = p.ran, true
		go p.watch(proc)
	}
	p.starting = nil
	retry := err != nil && p.ran && !p.closed
	p.mu.Unlock()
	close(done)

	if again {
		p.host.restarted(p)
	}
	if retry {
		p.startLater()
	}
}

// watch waits for the end of the process. A plugin that was needed once is needed still: what it
// made is to be reconciled.
func (p *Plugin) watch(proc *process) {
	<-proc.done
	defer proc.end()
	defer close(proc.noticed)
	p.mu.Lock()
	if p.proc == proc {
		p.proc = nil
	}
	if p.closed {
		p.mu.Unlock()
		return
	}
	if time.Since(proc.started) > shortLife {
		p.failures = 0
	}
	p.failures++
	p.err = proc.exitError()
	p.notUntil = time.Now().Add(pause(p.failures))
	p.host.o.Logger.Error("plugin ended", "plugin", p.String(), "pid", proc.pid, "error", p.err, "next", time.Until(p.notUntil))
	p.mu.Unlock()
	p.startLater()
}

// startLater starts the plugin again when the breaker lets it.
func (p *Plugin) startLater() {
	p.mu.Lock()
	wait := time.Until(p.notUntil)
	p.mu.Unlock()
	time.AfterFunc(max(wait, 0), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.closed || p.proc != nil || p.starting != nil {
			return
		}
		p.starting = make(chan struct{})
		go p.start(p.starting)
	})
}

// dead reports whether the process has ended, which watch may not have noticed yet.
func (proc *process) dead() bool {
	select {
	case <-proc.done:
		return true
	default:
		return false
	}
}

func (p *Plugin) close() {
	p.mu.Lock()
	p.closed = true
	proc, starting := p.proc, p.starting
	p.mu.Unlock()
	if starting != nil {
		<-starting
		p.mu.Lock()
		proc = p.proc
		p.mu.Unlock()
	}
	if proc != nil {
		proc.end()
	}
}
