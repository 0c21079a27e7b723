package jsonlog

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// slow is a log that waits in Add until it is let go.
type slow struct {
	mu   sync.Mutex
	go1  chan struct{}
	got  []string
	done bool
}

func (s *slow) Begin() Batch   { s.mu.Lock(); return s }
func (s *slow) End()           { s.mu.Unlock() }
func (s *slow) Close() error   { s.done = true; return nil }
func (s *slow) Dropped() int64 { return 1000 }
func (s *slow) Add(text []byte, _ Stream, _ time.Time) {
	<-s.go1
	s.got = append(s.got, string(text))
}

// A container never waits for a log that stands still; what the ring has room for arrives.
func TestRing(t *testing.T) {
	s := &slow{go1: make(chan struct{})}
	r := NewRing(s, 10)
	lines := NewLines(r, Stdout)
	lines.Write([]byte("four\n")) //nolint:errcheck // it takes all
	for taken := false; !taken; {
		time.Sleep(time.Millisecond)
		r.mu.Lock()
		taken = len(r.queue) == 0 // by the log that stands still
		r.mu.Unlock()
	}
	for range 99 {
		lines.Write([]byte("four\n")) //nolint:errcheck // see above
	}
	lines.Write([]byte("more than ten bytes\n")) //nolint:errcheck // see above
	lines.Close()
	close(s.go1)
	if err := r.Close(); err != nil || !s.done {
		t.Errorf("close: %v, %v", err, s.done)
	}
	if got := strings.Join(s.got, ""); got != "four\nfour\nfour\n" {
		t.Errorf("got %q", got)
	}
	if want := int64(1000 + 5*97 + len("more than ten bytes\n")); r.Dropped() != want {
		t.Errorf("dropped %d, want %d", r.Dropped(), want)
	}
}

func TestTee(t *testing.T) {
	a, b := &slow{go1: closedChannel}, &slow{go1: closedChannel}
	tee := Tee{a, b}
	NewLines(tee, Stderr).Write([]byte("x\ny\n")) //nolint:errcheck // it takes all
	if err := tee.Close(); err != nil || !a.done || !b.done {
		t.Error("not closed", err)
	}
	if len(a.got) != 2 || len(b.got) != 2 || tee.Dropped() != 2000 {
		t.Errorf("got %q, %q, %d", a.got, b.got, tee.Dropped())
	}
}
