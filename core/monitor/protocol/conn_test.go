package protocol

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// pair returns two connected ends.
func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := func(fd int) *Conn {
		f := os.NewFile(uintptr(fd), "end")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return NewConn(c.(*net.UnixConn))
	}
	return end(fds[0]), end(fds[1])
}

// Frames come whole and in order, each with its own files, whoever sends at the same time.
func TestFrames(t *testing.T) {
	a, b := pair(t)
	sizes := []int{0, 1, 100_000, 3 << 20}
	counts := []int{0, 1, 250, 600}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var senders sync.WaitGroup
	for i := range sizes {
		senders.Go(func() {
			files := make([]*os.File, counts[i])
			for j := range files {
				files[j] = w
			}
			if err := a.Send(uint32(i+1), bytes.Repeat([]byte{byte('a' + i)}, sizes[i]), files); err != nil {
				t.Error(err)
			}
		})
	}
	for range sizes {
		f, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		i := int(f.ID) - 1
		if len(f.Body) != sizes[i] || strings.Trim(string(f.Body), string(rune('a'+i))) != "" || len(f.Files) != counts[i] {
			t.Errorf("frame %d: %d bytes, %d files", i, len(f.Body), len(f.Files))
		}
		closeAll(f.Files)
	}
	senders.Wait()
	a.Close()
	if _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// What does not speak the protocol is an error, and costs no memory for what it announces.
func TestGarbage(t *testing.T) {
	for name, sent := range map[string]string{
		"another protocol":         "GET / HTTP/1.1\r\n\r\n",
		"too long":                 "SM\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff",
		"cut header":               "SM\x00",
		"cut body":                 "SM\x00\x00\x00\x00\x00\x01\x00\x00\x10\x00half",
		"files that are not there": "SM\x00\x02\x00\x00\x00\x01\x00\x00\x00\x00",
	} {
		a, b := pair(t)
		if _, err := a.Unix().Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if _, err := b.Receive(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, _ := pair(t)
	if err := a.Send(1, make([]byte, maxBody+1), nil); err == nil {
		t.Error("a message that is too long is sent")
	}
}

func TestErrorsKeepClassAndField(t *testing.T) {
	for _, err := range []error{
		errors.New("plain"), fault.New(fault.NotFound, "No such container: x"), &fault.Field{Field: "--memory", Given: "2x", Expected: "a size"},
	} {
		got := ErrorOf(err).Err()
		var want, have *fault.Field
		if got.Error() != err.Error() || fault.ClassOf(got) != fault.ClassOf(err) || errors.As(err, &want) != errors.As(got, &have) {
			t.Errorf("%v: got %v of %v", err, got, fault.ClassOf(got))
		}
	}
	if ErrorOf(nil).Err() != nil {
		t.Error("nil is an error")
	}
}

// A path that is longer than an address can hold works too, and nobody listening is Unavailable.
func TestLongSocketPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("d", 100), "monitor.sock")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(path); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without a socket: %v", err)
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	l.Close()
	if _, err := Dial(path); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a stale socket: %v", err)
	}
}

func TestLock(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "monitor.sock")
	unlock, err := Lock(socket, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(socket, false); !fault.Is(err, fault.Conflict) {
		t.Errorf("a lock that is taken: %v", err)
	}
	unlock()
	if unlock, err = Lock(socket, false); err != nil {
		t.Fatal(err)
	}
	unlock()
}
