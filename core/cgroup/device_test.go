package cgroup

import (
	"math/rand/v2"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// access is one question to a device program.
type access struct {
	kind         byte
	major, minor int64
	bits         uint8
}

// allowed is the specification, read literally: for each bit the last rule that matches decides.
func allowed(list []rule, a access) bool {
	for bit := uint8(1); bit <= anyAccess; bit <<= 1 {
		yes := false
		for _, r := range list {
			if (r.kind == 'a' || r.kind == a.kind) && (r.major == wildcard || r.major == a.major) &&
				(r.minor == wildcard || r.minor == a.minor) && r.access&bit != 0 {
				yes = r.allow
			}
		}
		if a.bits&bit != 0 && !yes {
			return false
		}
	}
	return true
}

// run interprets the instructions that deviceProgram uses.
func run(t *testing.T, p []instruction, a access) bool {
	kind := uint32(devBlock)
	if a.kind == 'c' {
		kind = devChar
	}
	context := map[int16]uint32{0: uint32(a.bits)<<16 | kind, 4: uint32(a.major), 8: uint32(a.minor)}
	var r [11]uint32
	for pc, steps := 0, 0; ; pc, steps = pc+1, steps+1 {
		if steps > len(p) {
			t.Fatal("the program does not end")
		}
		i := p[pc]
		dst, src := i.registers&0xf, i.registers>>4
		switch i.op {
		case loadWord:
			r[dst] = context[i.offset]
		case moveReg:
			r[dst] = r[src]
		case moveValue:
			r[dst] = uint32(i.value)
		case andValue:
			r[dst] &= uint32(i.value)
		case shiftRight:
			r[dst] >>= uint32(i.value)
		case jumpIfNot:
			if r[dst] != uint32(i.value) {
				pc += int(i.offset)
			}
		case jumpIfSet:
			if r[dst]&uint32(i.value) != 0 {
				pc += int(i.offset)
			}
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.offset)
		case exit:
			return r[rResult] == 1
		default:
			t.Fatalf("unknown instruction %#x", i.op)
		}
	}
}

// someRules makes rules in a small world, where they meet often.
func someRules(r *rand.Rand, n int) []rule {
	list := make([]rule, n)
	for i := range list {
		list[i] = rule{r.IntN(2) == 0, "abc"[r.IntN(3)], int64(r.IntN(4) - 1), int64(r.IntN(4) - 1), uint8(1 + r.IntN(7))}
	}
	return list
}

func eachAccess(f func(access)) {
	for _, kind := range []byte("bc") {
		for major := range int64(4) {
			for minor := range int64(4) {
				for bits := uint8(1); bits <= anyAccess; bits++ {
					f(access{kind, major, minor, bits})
				}
			}
		}
	}
}

func TestDeviceProgramFollowsTheRules(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		list := someRules(r, r.IntN(8))
		allow, rest := decisive(list)
		program := deviceProgram(allow, rest)
		eachAccess(func(a access) {
			if got, want := run(t, program, a), allowed(list, a); got != want {
				t.Fatalf("rules %+v: access %+v is %v, expected %v", list, a, got, want)
			}
		})
	}
}

// What v1's kernel keeps must come to the same, for one kind of access at a time.
func TestExceptionsFollowTheRules(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for range 2000 {
		list := someRules(r, r.IntN(6))
		allow, rest := decisive(list)
		wanted, err := exceptions(allow, rest)
		if err != nil {
			if !fault.Is(err, fault.NotImplemented) {
				t.Fatal(err)
			}
			refused++
			continue
		}
		kept := append([]rule{{allow: allow, kind: 'a', major: wildcard, minor: wildcard, access: anyAccess}}, wanted...)
		eachAccess(func(a access) {
			if a.bits&(a.bits-1) == 0 && allowed(kept, a) != allowed(list, a) {
				t.Fatalf("rules %+v kept as %+v: access %+v is %v", list, kept, a, allowed(kept, a))
			}
		})
	}
	if refused == 0 || refused > 1500 {
		t.Errorf("%d of 2000 were refused", refused)
	}
}

func TestRulesAreChecked(t *testing.T) {
	for want, bad := range map[string]specs.LinuxDeviceCgroup{
		`devices[0].access "rx"`: {Access: "rx"},
		`devices[0].major "-2"`:  {Major: pointer64[int64](-2)},
		`devices[0].minor "`:     {Minor: pointer64[int64](1 << 40)},
	} {
		if _, err := rules([]specs.LinuxDeviceCgroup{bad}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, expected %s", bad, err, want)
		}
	}
	if _, err := rules(make([]specs.LinuxDeviceCgroup, maxRules+1)); err == nil {
		t.Error("too many rules were taken")
	}
}

func TestTheKernelTakesThePrograms(t *testing.T) {
	needRoot(t)
	r := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{0, 1, 20, 200} {
		fd, err := loadProgram(encode(deviceProgram(n == 1, someRules(r, n))))
		if err != nil {
			t.Fatalf("%d rules: %v", n, err)
		}
		unix.Close(fd)
	}
}
