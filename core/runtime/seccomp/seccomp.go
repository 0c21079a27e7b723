// Package seccomp compiles the profiles of the OCI runtime specification (config-linux.md, "Seccomp")
// to the classic BPF programs that seccomp(2) takes.
//
//	load arch ── == x86_64 ──▶ load number ──▶ tree over the numbers ──▶ return, or compare arguments
//	          ── == i386   ──▶ load number ──▶ tree ...
//	          ── else      ──▶ kill
//
// The tree is a binary search over ranges of neighbouring numbers with one answer: a call costs some
// eight comparisons, where a list of a few hundred would cost all of them. The program reads nothing
// but architecture and number before an answer that does not depend on arguments, so that the kernel
// can work out once which calls are always allowed, and then does not run it for them at all.
//
// What the specification leaves open is decided so:
//
//   - Of several rules for one call the first that matches decides, in the profile's order.
//   - A rule that compares one argument twice matches when either comparison does, as in runc
//     and crun; otherwise all comparisons of a rule must hold.
//   - Names that no listed architecture has are ignored: profiles name calls of newer kernels.
//   - When the default is an error, a call with a number above all that the profile names for its
//     architecture gives ENOSYS: the profile is older than the call, and C libraries then fall back
//     to an older call, where another error would stop them.
//   - A process of an architecture that is not listed is killed at its first call.
package seccomp

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

//go:generate go run tables_gen.go

// Program is a compiled profile.
type Program struct {
	Filter []unix.SockFilter
	Flags  uint // SECCOMP_FILTER_FLAG_*
	Notify bool // a rule hands calls to a listener: SECCOMP_FILTER_FLAG_NEW_LISTENER is to be added
}

// Bounds on what comes from outside.
const (
	maxRules        = 4096
	maxNames        = 4096
	maxInstructions = 4096 // BPF_MAXINSNS
)

// maxErrno is the highest error number that the kernel returns to a program (MAX_ERRNO).
const maxErrno = 4095

// cache has the programs of the profiles that were compiled last, by the profile's content: one
// monitor starts many containers with one profile.
var cache struct {
	sync.Mutex
	programs map[string]Program
}

const (
	maxCached = 32
	maxKey    = 128 << 10 // Docker's profile has 7 KiB
)

// Compile compiles a profile for a machine of GOARCH arch ("": this one). The result is shared
// and must not be changed.
func Compile(c *specs.LinuxSeccomp, arch string) (Program, error) {
	if arch == "" {
		arch = runtime.GOARCH
	}
	if len(c.Syscalls) > maxRules {
		return Program{}, fault.New(fault.Invalid, "linux.seccomp.syscalls: %d rules, expected at most %d", len(c.Syscalls), maxRules)
	}
	key := content(c, arch)
	cache.Lock()
	p, ok := cache.programs[key]
	cache.Unlock()
	if ok {
		return p, nil
	}
	p, err := compile(c, arch)
	if err != nil {
		return Program{}, err
	}
	if len(key) > maxKey {
		return p, nil
	}
	cache.Lock()
	if cache.programs == nil || len(cache.programs) >= maxCached {
		cache.programs = map[string]Program{}
	}
	cache.programs[key] = p
	cache.Unlock()
	return p, nil
}

// content is the profile with every field in order, each with its length: some 10 KiB, made far faster than
// JSON. It is the key itself, since a package of hashes would cost every start of this program.
func content(c *specs.LinuxSeccomp, arch string) string {
	b := make([]byte, 0, 16<<10)
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	number := func(n uint64) { b = binary.AppendUvarint(b, n) }
	optional := func(n *uint) {
		if n == nil {
			number(0)
		} else {
			number(1)
			number(uint64(*n))
		}
	}
	text(arch)
	text(string(c.DefaultAction))
	optional(c.DefaultErrnoRet)
	number(uint64(len(c.Architectures)))
	for _, a := range c.Architectures {
		text(string(a))
	}
	number(uint64(len(c.Flags)))
	if c.Flags == nil {
		number(1)
	}
	for _, f := range c.Flags {
		text(string(f))
	}
	for _, s := range c.Syscalls {
		text(string(s.Action))
		optional(s.ErrnoRet)
		number(uint64(len(s.Args)))
		for _, a := range s.Args {
			number(uint64(a.Index))
			number(a.Value)
			number(a.ValueTwo)
			text(string(a.Op))
		}
		number(uint64(len(s.Names)))
		for _, n := range s.Names {
			text(n)
		}
	}
	return string(b)
}

// flagBits are the flags of the specification and SECCOMP_FILTER_FLAG_TSYNC, which runc takes and
// which changes nothing for a process that has one thread.
var flagBits = []struct {
	name specs.LinuxSeccompFlag
	bit  uint
}{
	{"SECCOMP_FILTER_FLAG_TSYNC", 0},
	{specs.LinuxSeccompFlagLog, unix.SECCOMP_FILTER_FLAG_LOG},
	{specs.LinuxSeccompFlagSpecAllow, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
	{specs.LinuxSeccompFlagWaitKillableRecv, unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV},
}

// Flags are the flags that are known, for `features`.
func Flags() []string {
	var names []string
	for _, f := range flagBits {
		names = append(names, string(f.name))
	}
	return names
}

// flags translates the profile's. Without a list (an empty one says none), SPEC_ALLOW holds, as in runc: the mitigation of
// speculative store bypass otherwise slows down everything that runs under a filter.
func flags(list []specs.LinuxSeccompFlag) (uint, error) {
	if list == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	bits := uint(0)
	for _, f := range list {
		found := false
		for _, k := range flagBits {
			if k.name == f {
				bits, found = bits|k.bit, true
			}
		}
		if !found {
			return 0, &fault.Field{Field: "linux.seccomp.flags", Given: string(f), Expected: fmt.Sprintf("one of %v", Flags()), Nearest: fault.Nearest(string(f), Flags())}
		}
	}
	return bits, nil
}

// actionValues are the actions with their SECCOMP_RET_*.
var actionValues = []struct {
	name  specs.LinuxSeccompAction
	value uint32
	errno bool // takes errnoRet
}{
	{specs.ActKill, unix.SECCOMP_RET_KILL_THREAD, false},
	{specs.ActKillProcess, unix.SECCOMP_RET_KILL_PROCESS, false},
	{specs.ActKillThread, unix.SECCOMP_RET_KILL_THREAD, false},
	{specs.ActTrap, unix.SECCOMP_RET_TRAP, false},
	{specs.ActErrno, unix.SECCOMP_RET_ERRNO, true},
	{specs.ActTrace, unix.SECCOMP_RET_TRACE, true},
	{specs.ActAllow, unix.SECCOMP_RET_ALLOW, false},
	{specs.ActLog, unix.SECCOMP_RET_LOG, false},
	{specs.ActNotify, unix.SECCOMP_RET_USER_NOTIF, false},
}

// Actions are the actions that are known, for `features`.
func Actions() []string {
	var names []string
	for _, a := range actionValues {
		names = append(names, string(a.name))
	}
	return names
}

// Operators are the comparisons that are known, for `features`.
func Operators() []string {
	return []string{
		string(specs.OpNotEqual), string(specs.OpLessThan), string(specs.OpLessEqual), string(specs.OpEqualTo),
		string(specs.OpGreaterEqual), string(specs.OpGreaterThan), string(specs.OpMaskedEqual),
	}
}

// action translates an action and its error number, which is EPERM where none is given.
func action(field string, name specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	for _, a := range actionValues {
		if a.name != name {
			continue
		}
		switch {
		case !a.errno && errno != nil:
			return 0, fault.New(fault.Invalid, "%s: errnoRet %d: action %s has none", field, *errno, name)
		case !a.errno:
			return a.value, nil
		case errno == nil:
			return a.value | uint32(unix.EPERM), nil
		case *errno > maxErrno:
			return 0, &fault.Field{Field: field + ".errnoRet", Given: fmt.Sprint(*errno), Expected: fmt.Sprintf("at most %d", maxErrno)}
		}
		return a.value | uint32(*errno), nil
	}
	return 0, &fault.Field{Field: field + ".action", Given: string(name), Expected: "an action such as SCMP_ACT_ERRNO", Nearest: fault.Nearest(string(name), Actions())}
}

// SupportedArchitectures are those with a table of calls.
func SupportedArchitectures() []string {
	var names []string
	for _, a := range architectures {
		names = append(names, string(a.name))
	}
	slices.Sort(names)
	return names
}
