package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// data is struct seccomp_data.
type data struct {
	arch, number uint32
	args         [6]uint64
}

// machine interprets a program.
func machine(t testing.TB, p Program) *bpf.VM {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(p.Filter))
	for i, f := range p.Filter {
		raw[i] = bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	list, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("there are instructions that do not exist")
	}
	vm, err := bpf.NewVM(list)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// ask runs the program. The interpreter is one of packets, whose words are big-endian; the program
// reads whole words only, at the places where the kernel has them.
func ask(t testing.TB, vm *bpf.VM, d data) uint32 {
	t.Helper()
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b[0:], d.number)
	binary.BigEndian.PutUint32(b[4:], d.arch)
	for i, a := range d.args {
		binary.BigEndian.PutUint32(b[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(b[20+8*i:], uint32(a>>32))
	}
	n, err := vm.Run(b)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// expect is the profile, read literally, for a call by its name.
func expect(t testing.TB, c *specs.LinuxSeccomp, a *architecture, name string, args [6]uint64) uint32 {
	t.Helper()
	answer := func(name specs.LinuxSeccompAction, errno *uint) uint32 {
		v, err := action("", name, errno)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, s := range c.Syscalls {
		if a.name == specs.ArchX86 && (name == "socketcall" || name == "ipc") {
			for _, m := range multiplexed {
				if i := int(args[0]&0xffffffff) - int(m.first); m.through == name && i >= 0 && i < len(m.names) && slices.Contains(s.Names, m.names[i]) && len(s.Args) == 0 {
					return answer(s.Action, s.ErrnoRet)
				}
			}
		}
		number, _ := a.find(name)
		names := func(n string) bool { k, ok := a.find(n); return ok && k == number } // a call can have two
		if slices.ContainsFunc(s.Names, names) && matches(s.Args, args, a.narrow) {
			return answer(s.Action, s.ErrnoRet)
		}
	}
	return answer(c.DefaultAction, c.DefaultErrnoRet)
}

func matches(conditions []specs.LinuxSeccompArg, args [6]uint64, narrow bool) bool {
	twice, anyHolds, allHold := false, false, true
	seen := map[uint]bool{}
	for _, c := range conditions {
		twice = twice || seen[c.Index]
		seen[c.Index] = true
		value, second, arg := c.Value, c.ValueTwo, args[c.Index]
		if narrow {
			value, second = uint64(uint32(value)), uint64(uint32(second))
		}
		holds := map[specs.LinuxSeccompOperator]bool{
			specs.OpEqualTo: arg == value, specs.OpNotEqual: arg != value, specs.OpLessThan: arg < value, specs.OpLessEqual: arg <= value,
			specs.OpGreaterThan: arg > value, specs.OpGreaterEqual: arg >= value, specs.OpMaskedEqual: arg&value == second,
		}[c.Op]
		anyHolds, allHold = anyHolds || holds, allHold && holds
	}
	if twice {
		return anyHolds
	}
	return allHold
}

// interesting are the values that arguments take: those of the profile and their neighbours.
func interesting(c *specs.LinuxSeccomp) []uint64 {
	set := map[uint64]bool{0: true, 1: true, 1 << 31: true, 1 << 32: true, ^uint64(0): true}
	for _, s := range c.Syscalls {
		for _, a := range s.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo, a.Value ^ a.ValueTwo, a.Value & 0xffffffff, a.Value << 32} {
				set[v-1], set[v], set[v+1] = true, true, true
			}
		}
	}
	list := make([]uint64, 0, len(set))
	for v := range set {
		list = append(list, v)
	}
	slices.Sort(list)
	return list
}

// compare asks about every call of every architecture.
func compare(t testing.TB, c *specs.LinuxSeccomp, host string, r *rand.Rand) {
	t.Helper()
	p, err := compile(c, host)
	if err != nil {
		t.Fatal(err)
	}
	vm := machine(t, p)
	values := interesting(c)
	archs, err := chosen(c.Architectures, host)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range archs {
		named := uint32(0)
		for _, k := range a.calls {
			for _, s := range c.Syscalls {
				if slices.Contains(s.Names, k.name) && (a.limit == 0 || k.number < a.limit) {
					named = max(named, k.number)
				}
			}
		}
		for _, k := range a.calls {
			tries := 1
			if slices.ContainsFunc(c.Syscalls, func(s specs.LinuxSyscall) bool { return len(s.Args) > 0 && slices.Contains(s.Names, k.name) }) {
				tries = 40
			}
			if k.name == "socketcall" || k.name == "ipc" {
				tries = 40
			}
			for i := range tries {
				var args [6]uint64
				for j := range args {
					args[j] = values[r.IntN(len(values))]
					if a.narrow {
						args[j] &= 0xffffffff
					}
				}
				if i%2 == 1 && tries > 1 {
					args[0] = uint64(r.IntN(30))
				}
				got, want := ask(t, vm, data{a.audit, k.number, args}), expect(t, c, a, k.name, args)
				if enosys := unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS); got == enosys && got != want && k.number > named && want&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ERRNO {
					continue
				}
				if got != want {
					t.Fatalf("%s %s %#x %x: got %#x, expected %#x\nprofile %s", a.name, k.name, k.number, args, got, want, asJSON(c))
				}
			}
		}
	}
	if got := ask(t, vm, data{arch: unix.AUDIT_ARCH_SPARC}); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("a foreign architecture: %#x", got)
	}
	listed := slices.ContainsFunc(archs, func(a *architecture) bool { return a.bit != 0 })
	if got := ask(t, vm, data{arch: unix.AUDIT_ARCH_X86_64, number: x32Bit}); host == "amd64" && !listed && got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("x32, which is not listed: %#x", got)
	}
}

func asJSON(c *specs.LinuxSeccomp) string {
	b, _ := json.Marshal(c)
	return string(b)
}

func dockers(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	caps := []string{"CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_CHROOT"}
	p, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDockersProfile(t *testing.T) {
	c := dockers(t)
	compare(t, c, runtime.GOARCH, rand.New(rand.NewPCG(1, 2)))
	p, err := Compile(c, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions for %v", len(p.Filter), c.Architectures)
	if len(p.Filter) > 1200 {
		t.Errorf("%d instructions", len(p.Filter))
	}
	if again, err := Compile(c, ""); err != nil || &again.Filter[0] != &p.Filter[0] {
		t.Error("a profile is compiled twice")
	}
}

// generate makes a profile from bytes, with values that are likely to matter.
func generate(r *rand.Rand) (*specs.LinuxSeccomp, string) {
	host := []string{"amd64", "arm64"}[r.IntN(2)]
	of := map[string][]specs.Arch{"amd64": {specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, "arm64": {specs.ArchAARCH64, specs.ArchARM}}[host]
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActKill, specs.ActTrap, specs.ActLog, specs.ActTrace}
	errno := func(a specs.LinuxSeccompAction) *uint {
		if n := uint(r.IntN(100)); (a == specs.ActErrno || a == specs.ActTrace) && r.IntN(2) == 0 {
			return &n
		}
		return nil
	}
	c := &specs.LinuxSeccomp{DefaultAction: actions[r.IntN(len(actions))], Architectures: of[:r.IntN(len(of)+1)]}
	c.DefaultErrnoRet = errno(c.DefaultAction)
	values := []uint64{0, 1, 2, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1<<63 + 5, ^uint64(0), 0x7e020000, r.Uint64()}
	for range r.IntN(12) {
		s := specs.LinuxSyscall{Action: actions[r.IntN(len(actions))]}
		s.ErrnoRet = errno(s.Action)
		for range 1 + r.IntN(30) {
			calls := []([]call){x8664[:], x86[:], arm[:]}[r.IntN(3)]
			near := 8 // few names, so that rules meet
			if r.IntN(2) == 0 {
				near = len(calls)
			}
			s.Names = append(s.Names, calls[r.IntN(near)].name)
		}
		s.Names = append(s.Names, "nothing_like_it")
		for range []int{0, 0, 1, 1, 2, 3}[r.IntN(6)] {
			s.Args = append(s.Args, specs.LinuxSeccompArg{
				Index: uint(r.IntN(6)), Value: values[r.IntN(len(values))], ValueTwo: values[r.IntN(len(values))],
				Op: specs.LinuxSeccompOperator(Operators()[r.IntN(7)]),
			})
		}
		c.Syscalls = append(c.Syscalls, s)
	}
	return c, host
}

func TestProgramsFollowTheirProfiles(t *testing.T) {
	for i := range uint64(150) {
		r := rand.New(rand.NewPCG(i, 7))
		c, host := generate(r)
		compare(t, c, host, r)
	}
}

func FuzzCompile(f *testing.F) {
	for i := range uint64(8) {
		c, _ := generate(rand.New(rand.NewPCG(i, 9)))
		f.Add([]byte(asJSON(c)))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var c specs.LinuxSeccomp
		if json.Unmarshal(text, &c) != nil {
			return
		}
		for _, host := range []string{"amd64", "arm64", "386", "arm"} {
			p, err := compile(&c, host)
			if err != nil {
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("error of several lines: %q", err)
				}
				continue
			}
			if len(p.Filter) > maxInstructions {
				t.Errorf("%d instructions", len(p.Filter))
			}
			vm := machine(t, p)
			for _, a := range architectures {
				for n := uint32(0); n < 600; n += 7 {
					ask(t, vm, data{a.audit, n | a.bit, [6]uint64{uint64(n)}})
				}
			}
		}
	})
}

func TestNewerCallsThanTheProfile(t *testing.T) {
	c := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"openat2", "read"}, Action: specs.ActAllow}}}
	for number, want := range map[uint32]uint32{
		0: unix.SECCOMP_RET_ALLOW, 1: unix.SECCOMP_RET_ERRNO | 1, 437: unix.SECCOMP_RET_ALLOW, 438: unix.SECCOMP_RET_ERRNO | 38, 5000: unix.SECCOMP_RET_ERRNO | 38,
		x32Bit: unix.SECCOMP_RET_KILL_PROCESS,
	} {
		p, err := compile(c, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t, machine(t, p), data{arch: unix.AUDIT_ARCH_X86_64, number: number}); got != want {
			t.Errorf("call %d: %#x, expected %#x", number, got, want)
		}
	}
}

func TestRefusedProfiles(t *testing.T) {
	errno := uint(5000)
	one := func(s specs.LinuxSyscall) specs.LinuxSeccomp {
		return specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{s}}
	}
	many := specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for i := range uint64(2000) {
		many.Syscalls = append(many.Syscalls, specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Value: i, Op: specs.OpEqualTo}}})
	}
	for want, c := range map[string]specs.LinuxSeccomp{
		`linux.seccomp.default.action "SCMP_ACT_ALOW": expected an action such as SCMP_ACT_ERRNO (did you mean "SCMP_ACT_ALLOW"?)`: {DefaultAction: "SCMP_ACT_ALOW"},
		`linux.seccomp.architectures "SCMP_ARCH_X86_46"`: {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_X86_46"}},
		`linux.seccomp.flags "LOG"`:                      {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"LOG"}},
		`linux.seccomp.defaultAction "SCMP_ACT_NOTIFY"`:  {DefaultAction: specs.ActNotify},
		`syscalls[0].names: 0 names`:                     one(specs.LinuxSyscall{Action: specs.ActErrno}),
		`syscalls[0].errnoRet "5000"`:                    one(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, ErrnoRet: &errno}),
		`errnoRet 5000: action SCMP_ACT_KILL has none`:   one(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActKill, ErrnoRet: &errno}),
		`syscalls[0]: SCMP_ACT_NOTIFY for write`:         one(specs.LinuxSyscall{Names: []string{"write"}, Action: specs.ActNotify}),
		`syscalls[0].args[0].index "6"`:                  one(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 6}}}),
		`syscalls[0].args[0].op "EQ"`:                    one(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "EQ"}}}),
		`the kernel takes at most 4096`:                  many,
	} {
		if _, err := Compile(&c, "amd64"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, expected %s", err, want)
		}
	}
	if _, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, "s390x"); err == nil {
		t.Error("an architecture without a table was taken")
	}
}

func TestNotify(t *testing.T) {
	p, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActNotify}}}, "amd64")
	if err != nil || !p.Notify {
		t.Fatalf("notify %v, %v", p.Notify, err)
	}
}

func TestTablesAreSorted(t *testing.T) {
	for _, a := range architectures {
		if !slices.IsSortedFunc(a.calls, func(x, y call) int { return strings.Compare(x.name, y.name) }) {
			t.Errorf("%s is not sorted by name", a.name)
		}
	}
	for name, want := range map[string][5]uint32{"read": {0, x32Bit, 3, 63, 3}, "ioctl": {16, x32Bit | 514, 54, 29, 54}, "openat2": {437, x32Bit | 437, 437, 437, 437}} {
		for i, a := range architectures {
			if got, ok := a.find(name); !ok || got != want[i] {
				t.Errorf("%s on %s: %#x, expected %#x", name, a.name, got, want[i])
			}
		}
	}
}

// TestTheKernelObeys loads Docker's profile, in a process of its own, and tries what it forbids and allows.
func TestTheKernelObeys(t *testing.T) {
	if os.Getenv("SECCOMP_CHILD") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestTheKernelObeys$", "-test.v")
		cmd.Env = append(os.Environ(), "SECCOMP_CHILD=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	runtime.LockOSThread()
	p, err := Compile(dockers(t), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	program := unix.SockFprog{Len: uint16(len(p.Filter)), Filter: &p.Filter[0]}
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(p.Flags), uintptr(unsafe.Pointer(&program))); e != 0 {
		t.Fatal(e)
	}
	if unix.Getpid() == 0 {
		t.Error("getpid")
	}
	if err := unix.Mount("none", "/nowhere", "tmpfs", 0, ""); !errors.Is(err, unix.EPERM) {
		t.Errorf("mount: %v, expected EPERM", err)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); e != unix.ENOSYS {
		t.Errorf("clone3: %v, expected ENOSYS", e)
	}
	if _, _, e := unix.RawSyscall(100000, 0, 0, 0); e != unix.ENOSYS {
		t.Errorf("call 100000: %v, expected ENOSYS", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0); e != 0 {
		t.Errorf("personality(0xffffffff): %v", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, 0x0040000, 0, 0); e != unix.EPERM {
		t.Errorf("personality(ADDR_NO_RANDOMIZE): %v, expected EPERM", e)
	}
}

func BenchmarkCompile(b *testing.B) {
	c := dockers(b)
	for b.Loop() {
		if _, err := compile(c, runtime.GOARCH); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCached(b *testing.B) {
	c := dockers(b)
	for b.Loop() {
		if _, err := Compile(c, runtime.GOARCH); err != nil {
			b.Fatal(err)
		}
	}
}
