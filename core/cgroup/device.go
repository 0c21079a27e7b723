package cgroup

import (
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// The kinds of access, as BPF_DEVCG_ACC_* of linux/bpf.h numbers them.
const (
	mknod = 1 << iota
	read
	write
	anyAccess = mknod | read | write
)

// wildcard is a device number that stands for all.
const wildcard = -1

// rule is one rule of the specification, checked. Of the rules that match an access the last decides.
type rule struct {
	allow        bool
	kind         byte // 'b' or 'c', or 'a' for both
	major, minor int64
	access       uint8
}

// maxRules bounds the rules of a container.
const maxRules = 4096

// always are the accesses that every container has, after the specification's rules: to make nodes,
// and to use the default devices of config-linux.md. The list is runc's.
var always = []rule{
	{true, 'c', wildcard, wildcard, mknod},
	{true, 'b', wildcard, wildcard, mknod},
	{true, 'c', 1, 3, anyAccess},          // null
	{true, 'c', 1, 5, anyAccess},          // zero
	{true, 'c', 1, 7, anyAccess},          // full
	{true, 'c', 1, 8, anyAccess},          // random
	{true, 'c', 1, 9, anyAccess},          // urandom
	{true, 'c', 5, 0, anyAccess},          // tty
	{true, 'c', 136, wildcard, anyAccess}, // pts/*
	{true, 'c', 5, 2, anyAccess},          // ptmx
}

// rules checks the specification's rules, and adds those that always hold. Nothing is allowed that no rule allows.
func rules(given []specs.LinuxDeviceCgroup) ([]rule, error) {
	if len(given) > maxRules {
		return nil, fault.New(fault.Invalid, "linux.resources.devices: %d rules, expected at most %d", len(given), maxRules)
	}
	list := make([]rule, 0, len(given)+len(always))
	for i, g := range given {
		r := rule{allow: g.Allow, kind: 'a', major: wildcard, minor: wildcard, access: anyAccess}
		field := fmt.Sprintf("linux.resources.devices[%d]", i)
		switch g.Type {
		case "", "a":
		case "b", "c":
			r.kind = g.Type[0]
		case "u": // an unbuffered character device, says mknod(1)
			r.kind = 'c'
		default:
			return nil, &fault.Field{Field: field + ".type", Given: g.Type, Expected: "a, b or c"}
		}
		for _, n := range []struct {
			name string
			from *int64
			to   *int64
		}{{".major", g.Major, &r.major}, {".minor", g.Minor, &r.minor}} {
			if n.from == nil {
				continue
			}
			if *n.from < wildcard || *n.from > 1<<32-2 {
				return nil, &fault.Field{Field: field + n.name, Given: fmt.Sprint(*n.from), Expected: "a device number, or -1 for all"}
			}
			*n.to = *n.from
		}
		if g.Access != "" {
			r.access = 0
			for _, c := range g.Access {
				bit := strings.IndexRune("mrw", c)
				if bit < 0 {
					return nil, &fault.Field{Field: field + ".access", Given: g.Access, Expected: "letters of rwm"}
				}
				r.access |= 1 << bit
			}
		}
		list = append(list, r)
	}
	return append(list, always...), nil
}

// all reports whether the rule is about every access to every device.
func (r rule) all() bool {
	return r.kind == 'a' && r.major == wildcard && r.minor == wildcard && r.access == anyAccess
}

// decisive drops the rules that a later one about everything makes void, and that one itself: it
// is the answer where no other rule matches.
func decisive(list []rule) (allow bool, rest []rule) {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].all() {
			return list[i].allow, list[i+1:]
		}
	}
	return false, list
}

// setDevices makes the rules hold. first says that the cgroup is new.
func (m *Manager) setDevices(given []specs.LinuxDeviceCgroup, first bool) error {
	list, err := rules(given)
	if err != nil {
		return err
	}
	allow, rest := decisive(list)
	if allow {
		rest = dropAllows(rest)
	}
	h := m.host.of("devices")
	switch {
	case h != nil && !h.unified:
		return m.setLegacyDevices(h.mount+m.path, allow, rest, first)
	case m.host.pure():
		if first && allow && len(rest) == 0 {
			return nil
		}
		return setUnifiedDevices(m.host.unified.mount+m.path, allow, rest)
	case allow && len(rest) == 0:
		return nil
	}
	p := plan{m: m}
	p.refuse(&setting{field: "linux.resources.devices"}, fault.New(fault.Invalid, "linux.resources.devices: this host has no devices cgroup controller"))
	return p.err
}

// dropAllows leaves out what allows, as far as nothing before it denies.
func dropAllows(list []rule) []rule {
	for i, r := range list {
		if !r.allow {
			return list[i:]
		}
	}
	return nil
}

// exception is what v1's kernel keeps beside "all are allowed" or "none is": the accesses for which
// the contrary holds.
type exception struct {
	kind         byte
	major, minor int64
}

// covers reports whether every device of b is one of a.
func (a exception) covers(b exception) bool {
	return a.kind == b.kind && (a.major == wildcard || a.major == b.major) && (a.minor == wildcard || a.minor == b.minor)
}

// overlaps reports whether a device is of both.
func (a exception) overlaps(b exception) bool {
	return a.kind == b.kind && (a.major == wildcard || b.major == wildcard || a.major == b.major) &&
		(a.minor == wildcard || b.minor == wildcard || a.minor == b.minor)
}

// exceptions works out what v1's kernel must keep, in the order of first mention. The kernel only
// takes away an exception that is exactly the same, so the rules are not merely written one after
// the other. A rule that cuts a hole into an exception is an error: v1 has no words for it.
func exceptions(allow bool, list []rule) ([]rule, error) {
	access := map[exception]uint8{}
	var order []exception
	for _, r := range list {
		kinds := []byte{r.kind}
		if r.kind == 'a' {
			kinds = []byte{'b', 'c'}
		}
		for _, kind := range kinds {
			e := exception{kind, r.major, r.minor}
			if r.allow != allow {
				if _, ok := access[e]; !ok {
					order = append(order, e)
				}
				access[e] |= r.access
				continue
			}
			for other, bits := range access {
				switch {
				case bits&r.access == 0:
				case e.covers(other):
					access[other] = bits &^ r.access
				case e.overlaps(other):
					return nil, fault.New(fault.NotImplemented, "linux.resources.devices: rule %s is an exception to rule %s, which cgroup v1 cannot express",
						r.text(kind), rule{kind: kind, major: other.major, minor: other.minor, access: bits}.text(kind))
				}
			}
		}
	}
	var out []rule
	for _, e := range order {
		if bits := access[e]; bits != 0 {
			out = append(out, rule{!allow, e.kind, e.major, e.minor, bits})
			access[e] = 0 // it may have been mentioned again
		}
	}
	return out, nil
}

// text is the rule in v1's form, "c 1:3 rwm".
func (r rule) text(kind byte) string {
	number := func(n int64) string {
		if n == wildcard {
			return "*"
		}
		return fmt.Sprint(n)
	}
	access := ""
	for _, a := range []struct {
		bit    uint8
		letter string
	}{{read, "r"}, {write, "w"}, {mknod, "m"}} {
		if r.access&a.bit != 0 {
			access += a.letter
		}
	}
	return fmt.Sprintf("%c %s:%s %s", kind, number(r.major), number(r.minor), access)
}

// setLegacyDevices writes rules to a v1 cgroup. "a" takes all exceptions away, and a running
// container would for a moment have none of its devices: its rules are changed one by one.
func (m *Manager) setLegacyDevices(dir string, allow bool, list []rule, first bool) error {
	wanted, err := exceptions(allow, list)
	if err != nil {
		return err
	}
	files := map[bool]string{true: dir + "/devices.allow", false: dir + "/devices.deny"}
	if first {
		// A new cgroup has its parent's rules, which may be narrower than "all".
		if !allow || len(wanted) > 0 {
			if err := writeFile(files[allow], "a"); err != nil {
				return fault.New(fault.Invalid, "linux.resources.devices: %w", err)
			}
		}
		return writeRules(files[!allow], wanted)
	}
	before, old, err := readRules(dir + "/devices.list")
	if err != nil {
		return err
	}
	if before != allow {
		if err := writeFile(files[allow], "a"); err != nil {
			return fault.New(fault.Invalid, "linux.resources.devices: %w", err)
		}
		return writeRules(files[!allow], wanted)
	}
	if allow {
		// devices.list does not tell the exceptions to "all".
		if err := writeFile(files[true], "a"); err != nil {
			return fault.New(fault.Invalid, "linux.resources.devices: %w", err)
		}
		return writeRules(files[false], wanted)
	}
	if err := writeRules(files[true], wanted); err != nil {
		return err
	}
	keep := map[exception]uint8{}
	for _, w := range wanted {
		keep[exception{w.kind, w.major, w.minor}] = w.access
	}
	var drop []rule
	for _, o := range old {
		if o.access &^= keep[exception{o.kind, o.major, o.minor}]; o.access != 0 {
			drop = append(drop, o)
		}
	}
	return writeRules(files[false], drop)
}

func writeRules(name string, list []rule) error {
	if len(list) == 0 {
		return nil
	}
	fd, err := retryOpen(name, unix.O_WRONLY)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	for _, r := range list {
		if err := writeTo(fd, name, r.text(r.kind)); err != nil {
			return fault.New(fault.Invalid, "linux.resources.devices: rule %s: %w", r.text(r.kind), err)
		}
	}
	return nil
}

// readRules reads devices.list: "a *:* rwm" when all are allowed, else the exceptions.
func readRules(name string) (allow bool, list []rule, err error) {
	text, err := readFile(name)
	if err != nil {
		return false, nil, err
	}
	for line := range strings.Lines(text) {
		var kind byte
		var major, minor, access string
		if _, err := fmt.Sscanf(strings.NewReplacer(":", " ").Replace(line), "%c %s %s %s", &kind, &major, &minor, &access); err != nil {
			return false, nil, fmt.Errorf("read %s: line %q: %w", name, line, err)
		}
		if kind == 'a' {
			return true, nil, nil
		}
		r := rule{allow: true, kind: kind, major: wildcard, minor: wildcard}
		if major != "*" {
			fmt.Sscan(major, &r.major) //nolint:errcheck // the kernel writes numbers
		}
		if minor != "*" {
			fmt.Sscan(minor, &r.minor) //nolint:errcheck // the kernel writes numbers
		}
		for _, c := range access {
			if bit := strings.IndexRune("mrw", c); bit >= 0 {
				r.access |= 1 << bit
			}
		}
		list = append(list, r)
	}
	return false, list, nil
}
