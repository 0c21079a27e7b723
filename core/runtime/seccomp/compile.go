package seccomp

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// rule is what a profile says about one call: an answer, and what the arguments must be for it.
type rule struct {
	conditions []specs.LinuxSeccompArg
	answer     uint32
}

// table has the rules of one architecture by number, in the profile's order.
type table map[uint32][]rule

// highest is the last number of all.
const highest = 1<<32 - 1

func compile(c *specs.LinuxSeccomp, host string) (Program, error) {
	bits, err := flags(c.Flags)
	if err != nil {
		return Program{}, err
	}
	archs, err := chosen(c.Architectures, host)
	if err != nil {
		return Program{}, err
	}
	byDefault, err := action("linux.seccomp.default", c.DefaultAction, c.DefaultErrnoRet)
	if err != nil {
		return Program{}, err
	}
	if c.DefaultAction == specs.ActNotify {
		return Program{}, fault.New(fault.Invalid, "linux.seccomp.defaultAction %q: expected another: the process that handles the calls would wait for itself", c.DefaultAction)
	}
	tables := make([]table, len(archs))
	for i := range tables {
		tables[i] = make(table, 512)
	}
	p := Program{Flags: bits}
	for i := range c.Syscalls {
		s := &c.Syscalls[i]
		answer, err := check(s, i)
		if err != nil {
			return Program{}, err
		}
		p.Notify = p.Notify || s.Action == specs.ActNotify
		for j, a := range archs {
			tables[j].add(a, s, answer)
		}
	}
	if p.Filter, err = assemble(archs, tables, byDefault); err != nil {
		return Program{}, err
	}
	return p, nil
}

// check checks a rule and translates its action.
func check(s *specs.LinuxSyscall, i int) (uint32, error) {
	field := fmt.Sprintf("linux.seccomp.syscalls[%d]", i)
	if len(s.Names) == 0 || len(s.Names) > maxNames {
		return 0, fault.New(fault.Invalid, "%s.names: %d names, expected 1 to %d", field, len(s.Names), maxNames)
	}
	answer, err := action(field, s.Action, s.ErrnoRet)
	if err != nil {
		return 0, err
	}
	if s.Action == specs.ActNotify && slices.Contains(s.Names, "write") {
		return 0, fault.New(fault.Invalid, "%s: %s for write: the process that loads the filter must be able to write", field, s.Action)
	}
	if len(s.Args) > 64 {
		return 0, fault.New(fault.Invalid, "%s.args: %d comparisons, expected at most 64", field, len(s.Args))
	}
	for j, a := range s.Args {
		if a.Index > 5 {
			return 0, &fault.Field{Field: fmt.Sprintf("%s.args[%d].index", field, j), Given: fmt.Sprint(a.Index), Expected: "0 to 5"}
		}
		if !slices.Contains(Operators(), string(a.Op)) {
			return 0, &fault.Field{Field: fmt.Sprintf("%s.args[%d].op", field, j), Given: string(a.Op), Expected: "an operator such as SCMP_CMP_EQ", Nearest: fault.Nearest(string(a.Op), Operators())}
		}
	}
	return answer, nil
}

// add adds a rule of the profile to the calls that the architecture has.
func (t table) add(a *architecture, s *specs.LinuxSyscall, answer uint32) {
	alternatives := [][]specs.LinuxSeccompArg{s.Args}
	if comparesTwice(s.Args) {
		alternatives = alternatives[:0]
		for i := range s.Args {
			alternatives = append(alternatives, s.Args[i:i+1])
		}
	}
	for _, name := range s.Names {
		if n, ok := a.find(name); ok {
			for _, conditions := range alternatives {
				t.put(n, rule{conditions, answer})
			}
		}
		// A call made through another has its arguments in memory, where no filter can see them.
		if n, first, ok := a.throughAnother(name); ok && len(s.Args) == 0 {
			t.put(n, rule{[]specs.LinuxSeccompArg{{Index: 0, Op: specs.OpEqualTo, Value: first}}, answer})
		}
	}
}

func comparesTwice(args []specs.LinuxSeccompArg) bool {
	seen := [6]bool{}
	for _, a := range args {
		if seen[a.Index] {
			return true
		}
		seen[a.Index] = true
	}
	return false
}

// put adds a rule unless one before it leaves nothing to decide.
func (t table) put(n uint32, r rule) {
	old := t[n]
	if len(old) > 0 && len(old[len(old)-1].conditions) == 0 {
		return
	}
	t[n] = append(old, r)
}

// span is a range of numbers, up to and with last, that share an answer.
type span struct {
	last  uint32
	rules []rule // that compare arguments, one number only
	end   uint32 // the answer when none of them matches
}

// spans covers the numbers from first to last.
func (t table) spans(a *architecture, first, last uint32, byDefault uint32) []span {
	numbers := make([]uint32, 0, len(t))
	newest := uint64(first) // the first number above all that are named
	for n := range t {
		numbers = append(numbers, n)
		if a.limit == 0 || n < a.limit {
			newest = max(newest, uint64(n)+1)
		}
	}
	slices.Sort(numbers)
	// See the package comment: ENOSYS stands for every default that gives an error.
	unnamed := func(from uint64) uint32 {
		if byDefault&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ERRNO && len(numbers) > 0 && from >= newest {
			return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		}
		return byDefault
	}
	var list []span
	add := func(s span) {
		if n := len(list); n > 0 && len(list[n-1].rules) == 0 && len(s.rules) == 0 && list[n-1].end == s.end {
			list[n-1].last = s.last
			return
		}
		list = append(list, s)
	}
	next := uint64(first) // what is not yet covered
	for _, n := range numbers {
		if uint64(n) > next {
			add(span{last: n - 1, end: unnamed(next)})
		}
		s := span{last: n, end: byDefault, rules: t[n]}
		if last := s.rules[len(s.rules)-1]; len(last.conditions) == 0 {
			s.end, s.rules = last.answer, s.rules[:len(s.rules)-1]
		}
		add(s)
		next = uint64(n) + 1
	}
	if next <= uint64(last) {
		add(span{last: last, end: unnamed(next)})
	}
	return list
}
