package client

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// serve answers requests on a unix socket and returns a client of it.
func serve(t *testing.T, handle http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handle, ReadHeaderTimeout: time.Minute}
	go s.Serve(l) //nolint:errcheck // ends with Close
	c, err := New(Options{Host: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = s.Close()
	})
	return c
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(wire.Error{Message: message})
}

func TestErrorsCarryClassAndWords(t *testing.T) {
	tests := map[int]fault.Class{
		400: fault.Invalid, 401: fault.Unauthorized, 403: fault.Forbidden, 404: fault.NotFound, 409: fault.Conflict, 413: fault.Invalid,
		500: fault.Internal, 501: fault.NotImplemented, 503: fault.Unavailable,
	}
	for status, class := range tests {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w, status, "no, for a reason") })
		err := c.ContainerStart(t.Context(), "x")
		var s *StatusError
		if !fault.Is(err, class) || err.Error() != "no, for a reason" || !errors.As(err, &s) || s.Status != status {
			t.Errorf("%d: %v of class %v", status, err, fault.ClassOf(err))
		}
	}
}

// Connections that are opened ahead are those of the requests that follow, also of one that is taken over; what is not
// used is closed.
func TestAhead(t *testing.T) {
	var opened, open atomic.Int32
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/attach") {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello")
			_ = conn.Close()
			open.Add(-1)
		}
	}), ConnState: func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			opened.Add(1)
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}}
	go s.Serve(l)   //nolint:errcheck // ends with Close
	defer s.Close() //nolint:errcheck // the test is over
	c, err := New(Options{Host: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	becomes := func(name string, n *atomic.Int32, want int32) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); n.Load() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d, want %d", name, n.Load(), want)
			}
		}
	}
	c.Ahead(3)
	if opened.Load() != 0 {
		t.Error("connected without a request")
	}
	if err := c.ContainerStart(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	becomes("opened", &opened, 4)
	h, err := c.ContainerAttach(t.Context(), "x", AttachOptions{Stream: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(h.Reader); string(got) != "hello" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if n := opened.Load(); n != 4 {
		t.Errorf("%d connections, want 4", n)
	}
	becomes("open beside the request's own, after a while", &open, 1)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	becomes("open", &open, 0)
}

func TestNobodyListens(t *testing.T) {
	c, err := New(Options{Host: "unix:///nowhere/s.sock"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Ping(t.Context())
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "Cannot connect to the sampan daemon at unix:///nowhere/s.sock") {
		t.Error(err)
	}
	var s *StatusError
	if errors.As(err, &s) {
		t.Error("it is taken for the daemon's answer")
	}
}

func TestDaemonIsStartedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	starts := 0
	c, err := New(Options{Host: "unix://" + path, Start: func(context.Context) error {
		starts++
		l, err := net.Listen("unix", path)
		if err != nil {
			return err
		}
		s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute}
		t.Cleanup(func() { _ = s.Close() })
		go s.Serve(l) //nolint:errcheck // ends with Close
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	for range 3 {
		if _, err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if starts != 1 {
		t.Errorf("started %d times", starts)
	}
}

// A server that is older is spoken to in its version, without a request of its own to find it out.
func TestVersionIsLowered(t *testing.T) {
	var paths []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		w.Header().Set("Api-Version", "1.40")
		if !strings.HasPrefix(r.URL.Path, "/v1.40/") {
			refuse(w, 400, "client version is too new")
			return
		}
		_, _ = w.Write([]byte("{}"))
	})
	for range 2 {
		if _, err := c.Info(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(paths, " "); got != "/v"+wire.APIVersion+"/info /v1.40/info /v1.40/info" || c.Version() != "1.40" {
		t.Errorf("got %s, then %s", got, c.Version())
	}
}

func TestHosts(t *testing.T) {
	for host, ok := range map[string]bool{
		"": true, "unix:///run/x.sock": true, "tcp://127.0.0.1:1": true, "tcp://h": true, "ssh://user@h:22": true, "https://h": true,
		"unix://": false, "h": false, "ftp://h": false, "tcp://": false, "tcp://u@h": false, "ssh://": false, "tcp://h/path": false, "ssh://u:p@h": false, "npipe:////./pipe/x": false,
	} {
		if _, err := New(Options{Host: host}); (err == nil) != ok {
			t.Errorf("%q: %v", host, err)
		}
	}
}

func TestNamesAreEscaped(t *testing.T) {
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.EscapedPath()
		_, _ = w.Write([]byte("{}"))
	})
	if _, err := c.ImageInspect(t.Context(), "registry.example:5000/a/b:c"); err != nil {
		t.Error(err)
	}
	if !strings.HasSuffix(got, "/images/registry.example:5000/a/b:c/json") {
		t.Error(got)
	}
	if _, err := c.ContainerInspect(t.Context(), "a/../b?x", false); err != nil {
		t.Error(err)
	}
	if !strings.HasSuffix(got, "/containers/a%2F..%2Fb%3Fx/json") {
		t.Error(got)
	}
	got = ""
	for _, name := range []string{"", " ", ".", ".."} {
		if _, err := c.ContainerInspect(t.Context(), name, false); err == nil || got != "" {
			t.Errorf("%q: %v, asked %q", name, err, got)
		}
	}
}

func TestSplitReference(t *testing.T) {
	for ref, want := range map[string][2]string{
		"busybox": {"busybox", ""}, "busybox:1": {"busybox", "1"}, "h:5000/a": {"h:5000/a", ""}, "h:5000/a:1": {"h:5000/a", "1"},
		"a@sha256:x": {"a", "sha256:x"}, "h:5000/a:1@sha256:x": {"h:5000/a", "sha256:x"},
	} {
		if name, tag, err := splitReference(ref); err != nil || name != want[0] || tag != want[1] {
			t.Errorf("%s: got %q %q %v", ref, name, tag, err)
		}
	}
	for _, ref := range []string{"x:", "h:5000/x:", "x:1:2", "h:5000/x:1:2", "x@", "x:1@", "x:@sha256:y", ":"} {
		if name, tag, err := splitReference(ref); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %q %q %v", ref, name, tag, err)
		}
	}
}

func frame(stream byte, text string) string {
	b := make([]byte, 8, 8+len(text))
	b[0] = stream
	binary.BigEndian.PutUint32(b[4:], uint32(len(text)))
	return string(append(b, text...))
}

func TestStdCopy(t *testing.T) {
	tests := []struct{ in, out, err, fails string }{
		{"", "", "", ""},
		{frame(1, "a") + frame(2, "b") + frame(1, "") + frame(0, "c"), "ac", "b", ""},
		{frame(1, strings.Repeat("x", 100_000)), strings.Repeat("x", 100_000), "", ""},
		{frame(1, "abc")[:9], "a", "", "unexpected EOF"},
		{frame(1, "abc")[:5], "", "", "unexpected EOF"},
		{frame(3, "the disk broke"), "", "", "the disk broke"},
		{frame(9, "x"), "", "", "stream 9"},
	}
	for i, tt := range tests {
		var out, errs bytes.Buffer
		_, err := StdCopy(&out, &errs, strings.NewReader(tt.in))
		if out.String() != tt.out || errs.String() != tt.err || (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%d: %q %q %v", i, out.String(), errs.String(), err)
		}
	}
}

// The answer of wait is the header: what comes after it is waited for by the function.
func TestWaitReturnsWithTheHeader(t *testing.T) {
	exit := make(chan struct{})
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-exit
		_, _ = w.Write([]byte(`{"StatusCode":7}`))
	})
	wait, err := c.ContainerWait(t.Context(), "x", WaitNextExit)
	if err != nil {
		t.Fatal(err)
	}
	close(exit)
	if answer, err := wait(); err != nil || answer.StatusCode != 7 {
		t.Error(answer, err)
	}
}

func TestHijack(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "gone") {
			refuse(w, 404, "No such container: gone")
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: "+multiplexedStream+"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst ")
		b, _ := io.ReadAll(buffered) // to the end of the client's input
		_, _ = conn.Write(b)
	})
	if _, err := c.ContainerAttach(t.Context(), "gone", AttachOptions{}); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	h, err := c.ContainerAttach(t.Context(), "x", AttachOptions{Stream: true, Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close() //nolint:errcheck // the test is over
	if _, err := io.WriteString(h.Conn, "then this"); err != nil {
		t.Fatal(err)
	}
	if err := h.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(h.Reader); string(got) != "first then this" || err != nil || h.TTY {
		t.Errorf("%q %v %v", got, err, h.TTY)
	}
}

// A daemon that ends in the middle is told in one way, whatever was asked.
func TestBroken(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{}\n")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	read := func(r io.ReadCloser, err error) error {
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		return errors.Join(err, r.Close())
	}
	for name, ask := range map[string]func() error{
		"logs":   func() error { return read(c.ContainerLogs(t.Context(), "a", LogOptions{})) },
		"export": func() error { return read(c.ContainerExport(t.Context(), "a")) },
		"stats": func() error {
			return c.ContainerStats(t.Context(), "a", true, func(wire.Stats) error { return nil })
		},
	} {
		if err := ask(); err == nil || !strings.HasPrefix(err.Error(), "the connection to the sampan daemon broke: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for op, cause := range map[string]error{"read": syscall.ECONNRESET, "write": syscall.EPIPE} {
		err := transportError(t.Context(), &net.OpError{Op: op, Net: "unix", Err: os.NewSyscallError(op, cause)})
		if want := "the connection to the sampan daemon broke: " + op + ": " + cause.Error(); err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}

func TestProgress(t *testing.T) {
	var auth atomic.Value
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		auth.Store(r.Header.Get("X-Registry-Auth"))
		_, _ = io.WriteString(w, `{"status":"one"}`+"\r\n\r\n"+`{"status":"two"}`+"\r\n")
		if strings.Contains(r.URL.RawQuery, "broken") {
			_, _ = io.WriteString(w, `{"errorDetail":{"message":"it broke"},"error":"it broke"}`+"\r\n")
		}
	})
	var got []string
	each := func(m wire.Message) error { got = append(got, m.Status); return nil }
	if err := c.ImagePull(t.Context(), "busybox", "", &wire.AuthConfig{Username: "u"}, each); err != nil || len(got) != 2 || auth.Load() == "" {
		t.Error(got, err, auth.Load())
	}
	if err := c.ImagePull(t.Context(), "broken", "", nil, nil); err == nil || err.Error() != "it broke" {
		t.Error(err)
	}
	stop := errors.New("enough")
	if err := c.ImagePull(t.Context(), "busybox", "", nil, func(wire.Message) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func TestBuild(t *testing.T) {
	var names []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		archive := tar.NewReader(r.Body)
		for {
			h, err := archive.Next()
			if err != nil {
				break
			}
			names = append(names, h.Name)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"stream":"step"}`+"\n"+`{"aux":{"ID":"sha256:x"}}`+"\n")
	})
	id, err := c.Build(t.Context(), wire.BuildGraph{}, func(w *tar.Writer) error {
		return w.WriteHeader(&tar.Header{Name: "local/src/f", Typeflag: tar.TypeReg})
	}, nil)
	if id != "sha256:x" || err != nil || strings.Join(names, " ") != "graph.json local/src/f" {
		t.Error(id, err, names)
	}
	broken := errors.New("unreadable")
	if _, err := c.Build(t.Context(), wire.BuildGraph{}, func(*tar.Writer) error { return broken }, nil); err == nil {
		t.Error("a source that cannot be read is no error")
	}
}

func TestCanceled(t *testing.T) {
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Info(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// A password in an address is refused, and no error repeats it.
func TestPasswordsAreNotRepeated(t *testing.T) {
	for _, host := range []string{"ssh://user:hush@h", "tcp://user:hush@h:1", "ftp://user:hush@h"} {
		if err := CheckHost(host); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// By TCP the request names the server, as that checks it; elsewhere a name stands for what has none.
func TestAuthority(t *testing.T) {
	for host, want := range map[string]string{"tcp://127.0.0.1:99": "127.0.0.1:99", "tcp://[::1]:99": "[::1]:99", "tcp://h": "h:2375", "unix:///x": dummyHost, "ssh://h": dummyHost} {
		d, err := newDialer(Options{Host: host})
		if err != nil || d.authority() != want {
			t.Errorf("%s: %s, %v", host, d.authority(), err)
		}
	}
}

// fakeSSH puts a program ssh into PATH that runs its command here, by a shell, as the far side does.
func fakeSSH(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// What the far shell gets is the words that were meant, whatever the socket's path; options of ssh's own
// cannot be smuggled in.
func TestSSHCommand(t *testing.T) {
	said := filepath.Join(t.TempDir(), "said")
	fakeSSH(t, `while [ "$1" != -- ]; do echo "option $1" >>`+said+`; shift; done
shift; echo "host $1" >>`+said+`; shift
sampan() { for word; do echo "word $word" >>`+said+`; done; }
eval "$*"
`)
	c, err := New(Options{Host: "ssh://me@far:2222/run/it's;touch%20$x.sock"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ping(t.Context()); err == nil {
		t.Error("nobody answered, and there is no error")
	}
	got, err := os.ReadFile(said)
	want := "option -o\noption ConnectTimeout=30\noption -T\noption -l\noption me\noption -p\noption 2222\nhost far\n" +
		"word --host\nword unix:///run/it's;touch $x.sock\nword system\nword dial-stdio\n"
	if string(got) != want || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
	for _, host := range []string{"ssh://-oProxyCommand=x", "ssh://-l@h"} {
		c, err := New(Options{Host: host})
		if err != nil {
			continue
		}
		if _, err := c.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// What ssh says when it fails is the error, whether a read or a write notices its end first.
func TestSSHFailsAtWrite(t *testing.T) {
	fakeSSH(t, "echo 'Host key verification failed.' >&2; exec <&-; sleep 0.1; exit 255\n")
	for _, readFirst := range []bool{false, true} {
		conn, err := dialSSH(&url.URL{Scheme: "ssh", Host: "far"})
		if err != nil {
			t.Fatal(err)
		}
		if readFirst {
			_, _ = conn.Read(make([]byte, 1))
		}
		for err = nil; err == nil; { // a pipe takes what fits until its reader is gone
			_, err = conn.Write(make([]byte, 4096))
		}
		if !strings.Contains(err.Error(), "Host key verification failed.") {
			t.Errorf("read first %t: %v", readFirst, err)
		}
		conn.Close()
	}
}

// A write that fails takes nothing away of what is there to be read, nor from a program that goes on.
func TestSSHOutputAfterAFailedWrite(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   int
	}{
		"it has ended": {"exec <&-; head -c 50000 /dev/zero; exit 0\n", 50000},
		"it goes on":   {"exec <&-; sleep 1.2; head -c 5 /dev/zero; exit 0\n", 5},
	} {
		t.Run(name, func(t *testing.T) {
			fakeSSH(t, c.script)
			conn, err := dialSSH(&url.URL{Scheme: "ssh", Host: "far"})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for err = nil; err == nil; {
				_, err = conn.Write(make([]byte, 4096))
			}
			if got, err := io.ReadAll(conn); len(got) != c.want || err != nil {
				t.Errorf("read %d bytes, %v; want %d", len(got), err, c.want)
			}
		})
	}
}

// What ssh says when it fails is the error.
func TestSSHFails(t *testing.T) {
	fakeSSH(t, "echo 'Host key verification failed.' >&2; exit 255\n")
	c, err := New(Options{Host: "ssh://far"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ping(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "Host key verification failed.") {
		t.Error(err)
	}
}
