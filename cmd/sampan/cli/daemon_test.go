package cli

import (
	"testing"
	"time"
)

// A daemon that is slow is waited for while it says what it does, and one that is silent is not.
func TestSilentDaemon(t *testing.T) {
	begin := time.Unix(1000, 0)
	p := start{size: 10, at: begin}
	for _, step := range []struct {
		after time.Duration
		size  int64
		late  bool
	}{
		{daemonPatience - 1, 10, false},
		{daemonPatience, 11, false}, // it has just said something
		{2*daemonPatience - 1, 11, false},
		{2 * daemonPatience, 5, false}, // another log: that is something too
		{3*daemonPatience - 1, 5, false},
		{3 * daemonPatience, 5, true},
	} {
		if late := p.late(step.size, begin.Add(step.after)); late != step.late {
			t.Errorf("after %v with %d bytes: late %v, want %v", step.after, step.size, late, step.late)
		}
	}
}
