package systemd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
)

// fake is a systemd that answers one connection on its private socket.
type fake struct {
	t     *testing.T
	conn  net.Conn
	in    *bufio.Reader
	calls []string // see asked
	job   uint32
	done  chan struct{} // closed when it answers no more
	// of the next calls
	failing map[string]string // method to the name of an error
	result  string            // of jobs
}

// newFake returns the Bus that is connected with it.
func newFake(t *testing.T, f *fake) *Bus {
	t.Helper()
	name := filepath.Join(t.TempDir(), "private")
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	f.t = t
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close() //nolint:errcheck // the test is over
		f.conn, f.in = conn, bufio.NewReader(conn)
		f.serve()
	}()
	b, err := dial(t.Context(), address{"unix:path=" + name, true}, os.Getuid())
	t.Cleanup(func() {
		if b != nil {
			b.Close() //nolint:errcheck // the test is over
		}
		l.Close() //nolint:errcheck // likewise
		<-f.done
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// asked closes the Bus, and returns what was asked of the fake by then.
func (f *fake) asked(b *Bus) []string {
	b.Close() //nolint:errcheck // what was asked is answered
	<-f.done
	return f.calls
}

func (f *fake) serve() {
	// The authentication protocol of the D-Bus specification, as a server that takes EXTERNAL.
	if _, err := f.in.ReadByte(); err != nil {
		return
	}
	for {
		line, err := f.in.ReadString('\n')
		if err != nil {
			return
		}
		answer := "ERROR"
		switch line = strings.TrimSpace(line); {
		case line == "AUTH":
			answer = "REJECTED EXTERNAL"
		case line == "AUTH EXTERNAL":
			answer = "DATA" // the user is the one of the socket
		case strings.HasPrefix(line, "DATA"):
			answer = "OK 0123456789abcdef0123456789abcdef"
		case line == "BEGIN":
			for f.message() == nil {
			}
			return
		}
		if _, err := io.WriteString(f.conn, answer+"\r\n"); err != nil {
			return
		}
	}
}

// message answers one.
func (f *fake) message() error {
	m, err := dbus.DecodeMessage(f.in)
	if err != nil {
		return err
	}
	method := m.Headers[dbus.FieldMember].Value().(string)
	answer := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{dbus.FieldReplySerial: dbus.MakeVariant(m.Serial())}}
	body := func(values ...any) {
		answer.Body = values
		answer.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(values...))
	}
	switch method {
	case "Get":
		values := map[string]string{"Version": "257.3-1", "ControlGroup": "/user.slice"}
		body(dbus.MakeVariant(values[m.Body[1].(string)]))
		return f.send(answer)
	case "StartTransientUnit", "StopUnit", "SetUnitProperties", "ResetFailedUnit", "AttachProcessesToUnit":
	default:
		f.t.Errorf("unexpected call of %s", method)
	}
	f.calls = append(f.calls, method+" "+m.Body[0].(string))
	if name := f.failing[method]; name != "" {
		answer.Type = dbus.TypeError
		answer.Headers[dbus.FieldErrorName] = dbus.MakeVariant(name)
		body("words of systemd")
		if method == "StartTransientUnit" {
			delete(f.failing, method)
		}
		return f.send(answer)
	}
	if method == "StartTransientUnit" || method == "StopUnit" {
		f.job++
		path := dbus.ObjectPath("/org/freedesktop/systemd1/job/" + strconv.Itoa(int(f.job)))
		// First the end of another's job, then that of this one: before the answer.
		for _, p := range []dbus.ObjectPath{"/org/freedesktop/systemd1/job/999", path} {
			result := "failed"
			if p == path {
				result = f.result
			}
			if err := f.signal(p, result); err != nil {
				return err
			}
		}
		body(path)
	}
	return f.send(answer)
}

func (f *fake) signal(job dbus.ObjectPath, result string) error {
	values := []any{uint32(1), job, "unit", result}
	return f.send(&dbus.Message{Type: dbus.TypeSignal, Body: values, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(object), dbus.FieldInterface: dbus.MakeVariant(strings.TrimSuffix(manager, ".")),
		dbus.FieldMember: dbus.MakeVariant("JobRemoved"), dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(values...)),
	}})
}

func (f *fake) send(m *dbus.Message) error { return m.EncodeTo(f.conn, binary.LittleEndian) }

var unit = Unit{Name: "p-n.scope", Slice: "a.slice"}

func TestBusStartsAndStops(t *testing.T) {
	f := &fake{result: "done"}
	b := newFake(t, f)
	if b.Version() != 257 || b.Root() != "/user.slice" {
		t.Errorf("version %d, root %s", b.Version(), b.Root())
	}
	ctx := t.Context()
	for _, do := range []func() error{
		func() error { return b.Start(ctx, unit, 7, []Property{property("TasksMax", uint64(5))}) },
		func() error { return b.Set(ctx, unit, nil) }, // nothing to say
		func() error { return b.Set(ctx, unit, []Property{property("TasksMax", uint64(6))}) },
		func() error { return b.Attach(ctx, unit, "below", 8) },
		func() error { return b.Stop(ctx, unit) },
	} {
		if err := do(); err != nil {
			t.Error(err)
		}
	}
	want := []string{"StartTransientUnit p-n.scope", "SetUnitProperties p-n.scope", "AttachProcessesToUnit p-n.scope", "StopUnit p-n.scope", "ResetFailedUnit p-n.scope"}
	if diff := cmp.Diff(want, f.asked(b)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestBusErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		f     fake
		do    func(context.Context, *Bus) error
		class fault.Class
		words string // "": no error
		calls int
	}{
		{"a failed unit of this name", fake{result: "done", failing: map[string]string{"StartTransientUnit": exists}},
			func(ctx context.Context, b *Bus) error { return b.Start(ctx, unit, 7, nil) }, fault.Internal, "", 3},
		{"a unit of this name", fake{result: "done", failing: map[string]string{"StartTransientUnit": exists, "ResetFailedUnit": notLoaded}},
			func(ctx context.Context, b *Bus) error { return b.Start(ctx, unit, 7, nil) }, fault.Conflict, "unit p-n.scope: there is one already", 2},
		{"a property", fake{result: "done", failing: map[string]string{"StartTransientUnit": "org.freedesktop.DBus.Error.PropertyReadOnly"}},
			func(ctx context.Context, b *Bus) error { return b.Start(ctx, unit, 7, nil) }, fault.Invalid, "start unit p-n.scope: words of systemd", 1},
		{"a job", fake{result: "failed"}, func(ctx context.Context, b *Bus) error { return b.Start(ctx, unit, 7, nil) }, fault.Unavailable, "the job's result is failed", 1},
		{"a unit that is gone", fake{failing: map[string]string{"StopUnit": noSuch}}, func(ctx context.Context, b *Bus) error { return b.Stop(ctx, unit) }, fault.Internal, "", 1},
		{"stopping", fake{failing: map[string]string{"StopUnit": "x.y"}}, func(ctx context.Context, b *Bus) error { return b.Stop(ctx, unit) }, fault.Internal, "stop unit p-n.scope: words of systemd", 1},
		{"setting", fake{failing: map[string]string{"SetUnitProperties": "x.y"}},
			func(ctx context.Context, b *Bus) error { return b.Set(ctx, unit, []Property{property("A", "b")}) }, fault.Invalid, "set properties of unit p-n.scope: words", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newFake(t, &c.f)
			err := c.do(t.Context(), b)
			if c.words == "" && err != nil || c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words) || !fault.Is(err, c.class) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("%v; expected %v %q", err, c.class, c.words)
			}
			if calls := c.f.asked(b); len(calls) != c.calls {
				t.Errorf("calls: %v", calls)
			}
		})
	}
}

func TestBusGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := newFake(t, &fake{result: "done"})
	cancel()
	if err := b.Start(ctx, unit, 7, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// Who does not speak is left.
	name := filepath.Join(t.TempDir(), "silent")
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	if _, err := dial(ctx, address{"unix:path=" + name, true}, 0); err == nil {
		t.Error("connected with nobody")
	}
}
