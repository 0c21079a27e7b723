package monitor

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor/protocol"
)

// testLink is a link whose other end answers nothing, and is read by nobody on this side.
func testLink(t *testing.T) *link {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	l := &link{conn: protocol.NewConn(c.(*net.UnixConn)), pending: map[uint32]*pending{}}
	t.Cleanup(func() { l.end(errors.New("the test is over")); theirs.Close() })
	return l
}

// The files of an answer that comes at the moment at which its caller gives up are closed: at the other end
// of a stream nobody reads, a container would stand still.
func TestAnswerAtTheMomentOfCancel(t *testing.T) {
	l := testLink(t)
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() {
		_, err := l.call(ctx, protocol.Request{Verb: protocol.Attach}, nil)
		gaveUp <- err
	}()
	// What read does: it takes the request out first, and delivers then.
	var p *pending
	for deadline := time.Now().Add(10 * time.Second); p == nil; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		for id := range l.pending {
			p = l.pending[id]
			delete(l.pending, id)
		}
		l.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("no request")
		}
	}
	cancel()
	time.Sleep(20 * time.Millisecond) // so that it has seen that
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.answer <- answer{files: []*os.File{w}}
	if err := <-gaveUp; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := w.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file is open: %v", err)
	}
}

// What cannot be sent is the failure of that request, and not the end of the connection with all others.
func TestRefusedMessage(t *testing.T) {
	l := testLink(t)
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, c := range []struct {
		name    string
		request protocol.Request
		files   []*os.File
		class   fault.Class
		want    string
	}{
		{"too large", protocol.Request{ID: strings.Repeat("x", 17<<20)}, nil, fault.Invalid, "expected at most"},
		{"closed file", protocol.Request{}, []*os.File{closed}, fault.Internal, "closed"},
	} {
		_, err := l.call(t.Context(), c.request, c.files)
		if !fault.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v (%v)", c.name, err, fault.ClassOf(err))
		}
		if err := l.lost(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if len(l.pending) > 0 {
			t.Errorf("%s: somebody waits for an answer", c.name)
		}
	}
}
