package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// Offsets in struct seccomp_data. Every machine that has a table stores the low half of an
// argument first.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// The instructions of classic BPF that are used.
const (
	opLoad    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd     = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opJump    = unix.BPF_JMP | unix.BPF_JA
	opEqual   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opGreater = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	opAtLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	opReturn  = unix.BPF_RET | unix.BPF_K
)

// fragment is a piece of a program. No jump leads out of it, and its end is not reached.
type fragment = []unix.SockFilter

func ret(answer uint32) unix.SockFilter { return unix.SockFilter{Code: opReturn, K: answer} }

// choose is "if the test holds then yes else no", however long they are. Jumps of a test reach 255
// instructions; one without a test reaches any.
func choose(op uint16, k uint32, yes, no fragment) fragment {
	out := make(fragment, 0, len(yes)+len(no)+2)
	if len(no) <= 255 {
		out = append(out, unix.SockFilter{Code: op, Jt: uint8(len(no)), K: k})
	} else {
		out = append(out, unix.SockFilter{Code: op, Jf: 1, K: k}, unix.SockFilter{Code: opJump, K: uint32(len(no))})
	}
	return append(append(out, no...), yes...)
}

// assemble makes the program. x32 has the audit architecture of x86_64, and its numbers are those
// with a high bit.
func assemble(archs []*architecture, tables []table, byDefault uint32) (fragment, error) {
	program := fragment{ret(unix.SECCOMP_RET_KILL_PROCESS)}
	for i := len(archs) - 1; i >= 0; i-- {
		a := archs[i]
		if a.bit != 0 {
			continue // comes with its sister
		}
		last := uint32(highest)
		if a.audit == unix.AUDIT_ARCH_X86_64 {
			last = x32Bit - 1
		}
		spans := tables[i].spans(a, 0, last, byDefault)
		if a.audit == unix.AUDIT_ARCH_X86_64 {
			spans = append(spans, sister(archs, tables, byDefault)...)
		}
		body := append(fragment{{Code: opLoad, K: offsetNumber}}, tree(spans, a.narrow)...)
		program = choose(opEqual, a.audit, body, program)
	}
	program = append(fragment{{Code: opLoad, K: offsetArch}}, program...)
	if len(program) > maxInstructions {
		return nil, fault.New(fault.Invalid, "linux.seccomp: the profile makes a program of %d instructions, the kernel takes at most %d", len(program), maxInstructions)
	}
	return program, nil
}

// sister covers the numbers of x32: killed when the profile does not list it.
func sister(archs []*architecture, tables []table, byDefault uint32) []span {
	for i, a := range archs {
		if a.bit != 0 {
			return tables[i].spans(a, a.bit, highest, byDefault)
		}
	}
	return []span{{last: highest, end: unix.SECCOMP_RET_KILL_PROCESS}}
}

// tree is a binary search for the span of the number that is loaded.
func tree(spans []span, narrow bool) fragment {
	if len(spans) == 1 {
		return leaf(spans[0], narrow)
	}
	middle := len(spans) / 2
	from := spans[middle-1].last + 1
	return choose(opAtLeast, from, tree(spans[middle:], narrow), tree(spans[:middle], narrow))
}

// leaf asks the rules of one call in order.
func leaf(s span, narrow bool) fragment {
	out := fragment{ret(s.end)}
	for i := len(s.rules) - 1; i >= 0; i-- {
		out = append(guard(s.rules[i], narrow), out...)
	}
	return out
}

// fail is a jump to where the next rule begins, until guard knows the distance. No jump within a
// condition is as far.
const fail = 255

// guard is "if all conditions hold then return", and what follows it otherwise.
func guard(r rule, narrow bool) fragment {
	var out fragment
	for _, c := range r.conditions {
		out = append(out, condition(c, narrow)...)
	}
	out = append(out, ret(r.answer))
	for i := range out {
		distance := uint8(len(out) - i - 1) // at most 6 conditions of 6 instructions
		if out[i].Jt == fail {
			out[i].Jt = distance
		}
		if out[i].Jf == fail {
			out[i].Jf = distance
		}
	}
	return out
}

// condition compares an argument in two halves, as BPF has 32 bits: it goes on behind its end when it
// holds. On an architecture with narrow arguments the upper half is always zero, and so is that of what
// it is compared with, which may be written as a negative number of 64 bits.
func condition(c specs.LinuxSeccompArg, narrow bool) fragment {
	value, second := c.Value, c.ValueTwo
	if narrow {
		value, second = value&highest, second&highest
	}
	low := unix.SockFilter{Code: opLoad, K: uint32(offsetArgs + 8*c.Index)}
	high := unix.SockFilter{Code: opLoad, K: low.K + 4}
	vl, vh := uint32(value), uint32(value>>32)
	switch c.Op {
	case specs.OpEqualTo:
		return fragment{high, {Code: opEqual, K: vh, Jf: fail}, low, {Code: opEqual, K: vl, Jf: fail}}
	case specs.OpNotEqual:
		return fragment{high, {Code: opEqual, K: vh, Jf: 2}, low, {Code: opEqual, K: vl, Jt: fail}}
	case specs.OpMaskedEqual:
		return fragment{
			high, {Code: opAnd, K: vh}, {Code: opEqual, K: uint32(second >> 32), Jf: fail},
			low, {Code: opAnd, K: vl}, {Code: opEqual, K: uint32(second), Jf: fail},
		}
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		op := uint16(opGreater)
		if c.Op == specs.OpGreaterEqual {
			op = opAtLeast
		}
		return fragment{
			high, {Code: opGreater, K: vh, Jt: 3}, {Code: opEqual, K: vh, Jf: fail},
			low, {Code: op, K: vl, Jf: fail},
		}
	default: // less than, less or equal: check has seen to it that there is no other
		op := uint16(opAtLeast)
		if c.Op == specs.OpLessEqual {
			op = opGreater
		}
		return fragment{
			high, {Code: opGreater, K: vh, Jt: fail}, {Code: opEqual, K: vh, Jf: 2},
			low, {Code: op, K: vl, Jt: fail},
		}
	}
}
