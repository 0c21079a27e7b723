package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// org.freedesktop.systemd1(5).
const (
	service   = "org.freedesktop.systemd1"
	object    = dbus.ObjectPath("/org/freedesktop/systemd1")
	manager   = service + ".Manager."
	noSuch    = service + ".NoSuchUnit"
	notLoaded = service + ".UnitNotLoaded"
	exists    = service + ".UnitExists"
)

// wait is how long a call or a job may take.
const wait = 30 * time.Second

// Bus is a connection with systemd. It is made for one verb, and is to be closed.
type Bus struct {
	conn    *dbus.Conn
	removed chan *dbus.Signal // JobRemoved
	version int
	root    string // cgroup of systemd
}

// Dial connects with the system's systemd, or with the user's own.
func Dial(ctx context.Context, user bool) (*Bus, error) {
	if err := Running(); err != nil {
		return nil, err
	}
	uid, _ := Ordinary()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var errs []error
	for _, a := range addresses(user, os.Getenv) {
		b, err := dial(ctx, a, uid)
		if err == nil {
			return b, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", a.text, err))
	}
	if len(errs) == 0 {
		return nil, fault.New(fault.Unavailable, "the systemd of user %d: expected its socket below XDG_RUNTIME_DIR, or DBUS_SESSION_BUS_ADDRESS: is there a login session?", uid)
	}
	return nil, fault.New(fault.Unavailable, "connect with systemd: %w", errors.Join(errs...))
}

// address is where systemd listens: itself (private), or by a bus.
type address struct {
	text    string
	private bool
}

// addresses are those that are there, best first. systemd's own sockets come first: with them no bus has
// to run, and a message has one hop less.
func addresses(user bool, getenv func(string) string) []address {
	escaped := func(name string) string { return "unix:path=" + dbus.EscapeBusAddressValue(name) }
	there := func(name string) bool { _, err := os.Stat(name); return err == nil }
	if !user {
		return []address{{escaped("/run/systemd/private"), true}}
	}
	var list []address
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		if name := filepath.Join(dir, "systemd/private"); there(name) {
			list = append(list, address{escaped(name), true})
		}
		if name := filepath.Join(dir, "bus"); there(name) && getenv("DBUS_SESSION_BUS_ADDRESS") == "" {
			list = append(list, address{escaped(name), false})
		}
	}
	// Programs that are started by an address, or on another machine, are none of ours.
	for a := range strings.SplitSeq(getenv("DBUS_SESSION_BUS_ADDRESS"), ";") {
		if strings.HasPrefix(a, "unix:") {
			list = append(list, address{a, false})
		}
	}
	return list
}

// dial connects. It is given the context for its own calls alone: the connection outlives it.
func dial(ctx context.Context, a address, uid int) (_ *Bus, err error) {
	conn, err := open(ctx, a)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close() //nolint:errcheck // the first error tells more
		}
	}()
	// Who does not answer is cut off.
	stop := context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // see above
	defer stop()
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(uid))}); err != nil {
		return nil, fmt.Errorf("authenticate as user %d: %w", uid, err)
	}
	b := &Bus{conn: conn, removed: make(chan *dbus.Signal, 16)}
	if !a.private {
		if err := conn.Hello(); err != nil {
			return nil, err
		}
		if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(service+".Manager"), dbus.WithMatchMember("JobRemoved")); err != nil {
			return nil, err
		}
		// Peers on its own socket get the signals unasked.
		if err := b.call(ctx, manager+"Subscribe", nil); err != nil {
			return nil, err
		}
	}
	conn.Signal(b.removed)
	var version string
	if err := b.property(ctx, "Version", &version); err != nil {
		return nil, err
	}
	b.version = parseVersion(version)
	return b, b.property(ctx, "ControlGroup", &b.root)
}

// open makes the connection. Many at once fill the queue of a socket (EAGAIN of connect(2)).
func open(ctx context.Context, a address) (*dbus.Conn, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		conn, err := dbus.Dial(a.text, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
		if !errors.Is(err, unix.EAGAIN) || ctx.Err() != nil {
			return conn, err
		}
		time.Sleep(pause)
	}
}

// Close ends the connection.
func (b *Bus) Close() error { return b.conn.Close() }

// Root is the cgroup that this systemd has, "" on a host.
func (b *Bus) Root() string { return b.root }

// Version is systemd's, such as 257.
func (b *Bus) Version() int { return b.version }

// parseVersion reads the number of "257.3-1" or "v245.4-1.fc32"; 0 when there is none.
func parseVersion(s string) int {
	s = strings.TrimLeft(s, "v\"")
	if i := strings.IndexFunc(s, func(c rune) bool { return c < '0' || c > '9' }); i >= 0 {
		s = s[:i]
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

func (b *Bus) call(ctx context.Context, method string, answer any, arguments ...any) error {
	return b.callOn(ctx, object, method, answer, arguments...)
}

func (b *Bus) callOn(ctx context.Context, on dbus.ObjectPath, method string, answer any, arguments ...any) error {
	call := b.conn.Object(service, on).CallWithContext(ctx, method, 0, arguments...)
	if call.Err != nil || answer == nil {
		return call.Err
	}
	return call.Store(answer)
}

func (b *Bus) property(ctx context.Context, name string, value any) error {
	return b.call(ctx, "org.freedesktop.DBus.Properties.Get", value, strings.TrimSuffix(manager, "."), name)
}

// is reports whether systemd answered with one of these errors.
func is(err error, names ...string) bool {
	var e dbus.Error
	if errors.As(err, &e) {
		for _, n := range names {
			if e.Name == n {
				return true
			}
		}
	}
	return false
}

// Start makes the unit with a first process in it, and returns when systemd has moved it there.
func (b *Bus) Start(ctx context.Context, u Unit, pid int, properties []Property) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	all := append(u.properties(pid), properties...)
	start := func() error {
		return b.job(ctx, "StartTransientUnit", u.Name, "replace", all, []struct {
			Name       string
			Properties []Property
		}{})
	}
	err := start()
	if is(err, exists) {
		// One that failed stays until it is forgotten.
		if b.call(ctx, manager+"ResetFailedUnit", nil, u.Name) == nil {
			err = start()
		}
	}
	if is(err, exists) {
		return fault.New(fault.Conflict, "unit %s: there is one already: %w", u.Name, err)
	}
	return refused("start unit "+u.Name, err)
}

// refused is an error of systemd about what it was told; others keep their class.
func refused(what string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", what, err)
	var e dbus.Error
	if errors.As(err, &e) {
		return fault.As(fault.Invalid, err)
	}
	return err
}

// Set changes properties of a unit, until the next boot.
func (b *Bus) Set(ctx context.Context, u Unit, properties []Property) error {
	if len(properties) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return refused("set properties of unit "+u.Name, b.call(ctx, manager+"SetUnitProperties", nil, u.Name, true, properties))
}

// Attach moves a process into the unit, or into a cgroup below it. It must not be a slice.
func (b *Bus) Attach(ctx context.Context, u Unit, below string, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if below != "" {
		below = filepath.Join("/", below)
	}
	if err := b.call(ctx, manager+"AttachProcessesToUnit", nil, u.Name, below, []uint32{uint32(pid)}); err != nil {
		return fmt.Errorf("attach process %d to unit %s: %w", pid, u.Name, err)
	}
	return nil
}

// Stop ends a unit with all that is in it. One that is gone, as a scope is without processes, is no
// error.
func (b *Bus) Stop(ctx context.Context, u Unit) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := b.job(ctx, "StopUnit", u.Name, "replace")
	if is(err, noSuch, notLoaded) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop unit %s: %w", u.Name, err)
	}
	if err := b.call(ctx, manager+"ResetFailedUnit", nil, u.Name); err != nil && !is(err, noSuch, notLoaded) {
		return fmt.Errorf("reset unit %s: %w", u.Name, err)
	}
	return nil
}

// job calls a method that makes a job, and waits for its end. The signal may come before the answer, and
// is kept until then by its channel.
func (b *Bus) job(ctx context.Context, method string, arguments ...any) error {
	var job dbus.ObjectPath
	if err := b.call(ctx, manager+method, &job, arguments...); err != nil {
		return err
	}
	for {
		select {
		case s, ok := <-b.removed:
			if !ok {
				return fault.New(fault.Unavailable, "systemd closed the connection")
			}
			// JobRemoved(u id, o job, s unit, s result)
			if s.Name != manager+"JobRemoved" || len(s.Body) < 4 || s.Body[1] != job {
				continue
			}
			if s.Body[3] != "done" {
				return fault.New(fault.Unavailable, "the job's result is %v, expected done", s.Body[3])
			}
			return nil
		case <-ctx.Done():
			return fault.New(fault.Deadline, "job %s did not end: %w", job, context.Cause(ctx))
		}
	}
}
