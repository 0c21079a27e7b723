package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// The test program is CRIU too: it answers as the variable says.
const play = "SAMPAN_CRIU_TEST"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "swrk" {
		os.Exit(fake(os.Getenv(play)))
	}
	os.Exit(m.Run())
}

// fake plays CRIU on descriptor 3.
func fake(part string) int {
	buf := make([]byte, 1<<16)
	listen := func() []byte {
		n, err := unix.Read(3, buf)
		if err != nil || n == 0 {
			os.Exit(3)
		}
		return buf[:n]
	}
	say := func(fill func(*message), rights []byte) {
		var m message
		fill(&m)
		if err := unix.Sendmsg(3, m, rights, nil, 0); err != nil {
			os.Exit(4)
		}
	}
	answer := func(kind Kind, success bool, more func(*message)) {
		say(func(m *message) {
			m.number(1, uint64(kind))
			m.number(2, boolean(success))
			if more != nil {
				more(m)
			}
		}, nil)
	}
	var kind Kind
	fields(listen(), func(field int, number uint64, _ []byte) error { //nolint:errcheck // a test's own message
		if field == 1 {
			kind = Kind(number)
		}
		return nil
	})
	if kind == version {
		return playVersion(part, answer)
	}
	for _, step := range []string{"setup-namespaces", "orphan-pts-master"} {
		var note message
		note.text(1, step)
		note.signed(2, 4711)
		var rights []byte
		if step == "orphan-pts-master" {
			rights = unix.UnixRights(2)
		}
		say(func(m *message) {
			m.number(1, uint64(notify))
			m.yes(2, true)
			m.bytes(5, note)
		}, rights)
		if reply := listen(); !slices.Equal(reply, []byte{8, 6, 24, 1}) {
			answer(notify, false, nil)
			return 1
		}
	}
	switch part {
	case "dies":
		fmt.Fprintln(os.Stderr, "(00.1) Error (criu/x.c:1): the cause of death")
		return 1
	case "fails":
		answer(kind, false, func(m *message) { m.number(7, uint64(unix.EBUSY)) })
		return 1
	case "tells":
		answer(kind, false, func(m *message) { m.text(9, "so it is\n") })
		return 1
	}
	answer(kind, true, func(m *message) {
		var sub message
		sub.signed(1, 4711)
		m.bytes(4, sub)
	})
	return 0
}

func playVersion(part string, answer func(Kind, bool, func(*message))) int {
	number := func(major, minor uint64) func(*message) {
		return func(m *message) {
			var v message
			v.number(1, major)
			v.number(2, minor)
			m.bytes(10, v)
		}
	}
	switch part {
	case "old":
		answer(version, true, number(3, 14))
	case "mute":
		fmt.Fprintln(os.Stderr, "Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds")
		return 1
	case "garbage":
		unix.Write(3, []byte{0xff, 0xff, 0xff}) //nolint:errcheck // then it says nothing
	case "impossible":
		unix.Write(3, []byte{8, 10, 16, 1, 82, 0x7f, 1}) //nolint:errcheck // then it says nothing
	default:
		answer(version, true, number(4, 2))
	}
	return 0
}

func acting(t *testing.T, part string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "criu")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv(play, part)
}

func TestFind(t *testing.T) {
	for part, words := range map[string]string{
		"old":        "is version 3.14, expected 3.15 or newer",
		"mute":       "does not tell its version: vdso: Unexpected rt vDSO area bounds",
		"garbage":    "does not tell its version: the answer is no message of CRIU's: 3 bytes",
		"impossible": "the answer is no message of CRIU's: 7 bytes",
	} {
		acting(t, part)
		if _, err := Find(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v, want %q", part, err, words)
		}
	}
	acting(t, "")
	p, err := Find(t.Context())
	if err != nil || p.Version() != 40200 {
		t.Fatalf("%+v, %v; want version 4.2", p, err)
	}
	if err := p.Require("--some", 50000); err == nil || !strings.Contains(err.Error(), "--some: ") || !strings.Contains(err.Error(), "is version 4.2, expected 5.0 or newer") {
		t.Errorf("got %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Find(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "CRIU is needed and not installed") {
		t.Errorf("got %v", err)
	}
}

func TestDo(t *testing.T) {
	luck := errors.New("no luck")
	for _, c := range []struct {
		part, words string
		kind        Kind
		notify      error
	}{
		{kind: Restore},
		{part: "dies", kind: Dump, words: "the cause of death"},
		{part: "fails", kind: Dump, words: "device or resource busy"},
		{part: "tells", kind: Dump, words: "so it is"},
		{kind: Restore, notify: luck, words: luck.Error()},
	} {
		acting(t, c.part)
		p, err := Find(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var steps []string
		pid, err := p.Do(t.Context(), &Call{Kind: c.kind, Notify: func(n Notification) error {
			steps = append(steps, n.Step)
			if n.Pid != 4711 || (n.File != nil) != (n.Step == "orphan-pts-master") {
				t.Errorf("%+v", n)
			}
			if n.File != nil {
				n.File.Close()
			}
			return c.notify
		}})
		switch {
		case c.words == "" && (err != nil || pid != 4711 || len(steps) != 2):
			t.Errorf("%s: pid %d, %v, steps %v", c.part, pid, err, steps)
		case c.words != "" && (err == nil || err.Error() != c.words):
			t.Errorf("%s: got %v, want %s", c.part, err, c.words)
		}
	}
}

// The bytes are those that protoc makes of the same values (criu_opts in images/rpc.proto of CRIU).
func TestEncode(t *testing.T) {
	o := Options{
		Pid: 300, LeaveRunning: true, CgroupMode: "ignore", Mounts: []Pair{{Key: "/a", Value: "b"}},
		InheritFiles: []Pair{{Key: "k", Number: 4}}, External: []string{"x"}, EmptyNetwork: true,
	}
	want := []byte{
		2 << 3, 0xac, 2, // pid
		3 << 3, 1,
		9 << 3, 4,
		12 << 3, 1,
		0xba, 1, 7, 10, 2, '/', 'a', 18, 1, 'b', // ext_mnt, 23
		0xc0, 1, 1,
		0xda, 1, 5, 10, 1, 'k', 16, 4, // inherit_fd, 27
		0x90, 2, 0,
		0xaa, 2, 1, 'x', // external, 37
		0xb0, 2, 0x80, 0x80, 0x80, 0x80, 4,
	}
	if diff := cmp.Diff(want, []byte(o.encode())); diff != "" {
		t.Error(diff)
	}
	var m message
	m.signed(1, -1)
	if diff := cmp.Diff([]byte{8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, []byte(m)); diff != "" {
		t.Error(diff)
	}
}

func TestCause(t *testing.T) {
	for _, c := range []struct{ log, want string }{
		{"", ""},
		{"(00.1) all is well\n", ""},
		{"(00.1)      1: Error (criu/sk-inet.c:188): inet: Connected TCP socket\n(00.2) Error (criu/cr-dump.c:1): Dump files (pid: 9) failed with -1\n(00.3) Error (criu/cr-dump.c:2): Dumping FAILED.\n", "inet: Connected TCP socket"},
		{"(00.1) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n(00.2) Error (criu/x.c:2): it\n", "it"},
		{"(00.3) Error (criu/cr-dump.c:2): Dumping FAILED.\n", "Dumping FAILED."},
		{strings.Repeat("x", 2<<20), ""},
	} {
		name := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(name, []byte(c.log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Cause(name); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte{8, 10, 16, 1, 82, 4, 8, 4, 16, 2})
	f.Add([]byte{8, 6, 16, 1, 42, 3, 10, 1, 'x'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(_ *testing.T, data []byte) {
		var a answer
		a.decode(data) //nolint:errcheck // it must only return
	})
}
