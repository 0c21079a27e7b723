package linux

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is a connected pair of sockets.
func pair(t *testing.T) (a, b *os.File) {
	t.Helper()
	a, b, err := Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// named is an open file with its name as content.
func named(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(name); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFilesComeWithTheirData(t *testing.T) {
	a, b := pair(t)
	for _, name := range []string{"one", "two"} {
		if err := SendFile(a, []byte(name), named(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := SendFile(a, []byte("none"), nil); err != nil {
		t.Fatal(err)
	}
	a.Close()
	r := &Receiver{Socket: b}
	got, err := io.ReadAll(r)
	if string(got) != "onetwonone" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	for _, want := range []string{"one", "two"} {
		f := r.Take()
		if f == nil {
			t.Fatalf("no file %s", want)
		}
		content := make([]byte, 10)
		n, err := f.ReadAt(content, 0)
		if string(content[:n]) != want || !errors.Is(err, io.EOF) {
			t.Errorf("got %q, %v, want %s", content[:n], err, want)
		}
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 || err != nil {
			t.Errorf("%s is not close-on-exec: %v", want, err)
		}
		f.Close()
	}
	if f := r.Take(); f != nil {
		t.Errorf("one more file: %s", f.Name())
	}
}

// As many files as a message may have come with its first byte; more are refused before anything is sent.
func TestFilesComeTogether(t *testing.T) {
	a, b := pair(t)
	file := named(t, "f")
	files := slices.Repeat([]*os.File{file}, maxFiles)
	if err := SendFiles(a, []byte("xy"), files...); err != nil {
		t.Fatal(err)
	}
	r := &Receiver{Socket: b}
	defer r.Close()
	if n, err := r.Read(make([]byte, 1)); n != 1 || err != nil || len(r.Files) != maxFiles {
		t.Errorf("%d bytes, %v, %d files, expected 1 and %d", n, err, len(r.Files), maxFiles)
	}
	if err := SendFiles(a, []byte("z"), append(files, file)...); err == nil || !strings.Contains(err.Error(), "expected at most 64") {
		t.Errorf("one file more: %v", err)
	}
	a.Close()
	if rest, err := io.ReadAll(r); string(rest) != "y" || err != nil || len(r.Files) != maxFiles {
		t.Errorf("then %q, %v, %d files", rest, err, len(r.Files))
	}
}

// More than a socket holds goes over whole, and the file with it once.
func TestSendFileSendsAll(t *testing.T) {
	a, b := pair(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sent := make(chan error, 1)
	file := named(t, "f")
	go func() {
		sent <- SendFile(a, data, file)
		a.Close()
	}()
	r := &Receiver{Socket: b}
	defer r.Close()
	got, err := io.ReadAll(r)
	if !bytes.Equal(got, data) || err != nil {
		t.Errorf("got %d bytes of %d, %v", len(got), len(data), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if len(r.Files) != 1 {
		t.Errorf("%d files came, want 1", len(r.Files))
	}
}

func TestReceiverClosesWhatNobodyTook(t *testing.T) {
	a, b := pair(t)
	if err := SendFile(a, []byte("x"), named(t, "f")); err != nil {
		t.Fatal(err)
	}
	r := &Receiver{Socket: b}
	if _, err := r.Read(make([]byte, 1)); err != nil || len(r.Files) != 1 {
		t.Fatalf("%d files, %v", len(r.Files), err)
	}
	f := r.Files[0]
	r.Close()
	if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) || r.Take() != nil {
		t.Errorf("the file is open: %v", err)
	}
	if _, err := b.Stat(); err != nil {
		t.Errorf("the socket is closed: %v", err)
	}
}

// To write to a peer that is gone is an error, and no signal.
func TestSendFileToNobody(t *testing.T) {
	a, b := pair(t)
	b.Close()
	if err := SendFile(a, []byte("x"), nil); !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v, want EPIPE", err)
	}
}

// The directory's path may be longer than an address of a socket.
func TestListenAndConnect(t *testing.T) {
	deep := t.TempDir()
	for range 3 {
		deep = filepath.Join(deep, strings.Repeat("d", 100))
	}
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := OpenAt(nil, deep, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := Connect(dir, "sock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nobody listens: %v", err)
	}
	listener, err := Listen(dir, "sock", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := Listen(dir, "sock", 1); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second listener: %v", err)
	}
	if _, err := Listen(dir, strings.Repeat("n", maxSocketPath), 1); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("a long name: %v", err)
	}
	for name, connect := range map[string]func() (*os.File, error){
		"by handle": func() (*os.File, error) { return Connect(dir, "sock") },
		"by path":   func() (*os.File, error) { return ConnectPath(filepath.Join(deep, "sock")) },
	} {
		client, err := connect()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		server, err := Accept(listener)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := SendFile(client, []byte(name), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		client.Close()
		if got, err := io.ReadAll(&Receiver{Socket: server}); string(got) != name || err != nil {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		server.Close()
	}
}
