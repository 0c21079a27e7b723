package seccomp

import (
	"slices"
	"sort"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// call is a system call of one architecture.
type call struct {
	name   string
	number uint32
}

// architecture is one that a process can have: an AUDIT_ARCH_*, and for x32, which shares that of
// x86_64, a bit in the numbers.
type architecture struct {
	name   specs.Arch
	goarch string // of a machine whose own it is
	hosts  []string
	audit  uint32
	bit    uint32
	narrow bool   // arguments have 32 bits
	limit  uint32 // the numbers from here are not in the order in which calls came to the kernel; 0: all are
	calls  []call
}

// x32Bit is __X32_SYSCALL_BIT.
const x32Bit = 0x40000000

var architectures = []*architecture{
	{name: specs.ArchX86_64, goarch: "amd64", hosts: []string{"amd64"}, audit: unix.AUDIT_ARCH_X86_64, calls: x8664[:]},
	{name: specs.ArchX32, hosts: []string{"amd64"}, audit: unix.AUDIT_ARCH_X86_64, bit: x32Bit, limit: x32Bit | 512, calls: x32[:]},
	{name: specs.ArchX86, goarch: "386", hosts: []string{"amd64", "386"}, audit: unix.AUDIT_ARCH_I386, narrow: true, calls: x86[:]},
	{name: specs.ArchAARCH64, goarch: "arm64", hosts: []string{"arm64"}, audit: unix.AUDIT_ARCH_AARCH64, calls: aarch64[:]},
	{name: specs.ArchARM, goarch: "arm", hosts: []string{"arm64", "arm"}, audit: unix.AUDIT_ARCH_ARM, narrow: true, limit: 0xf0000, calls: arm[:]},
}

// foreign are the specification's other architectures. No machine that has a table runs them.
var foreign = []specs.Arch{
	specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
	specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64,
	specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// chosen are the architectures of the profile that a machine of GOARCH host can run. Its own is always one,
// and the first.
func chosen(list []specs.Arch, host string) ([]*architecture, error) {
	var out []*architecture
	for _, a := range architectures {
		if a.goarch == host {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return nil, fault.New(fault.NotImplemented, "linux.seccomp: there is no table of system calls for %s", host)
	}
	for _, name := range list {
		i := slices.IndexFunc(architectures, func(a *architecture) bool { return a.name == name })
		switch {
		case i < 0 && slices.Contains(foreign, name):
		case i < 0:
			return nil, &fault.Field{Field: "linux.seccomp.architectures", Given: string(name), Expected: "an architecture such as SCMP_ARCH_X86_64", Nearest: fault.Nearest(string(name), SupportedArchitectures())}
		case slices.Contains(architectures[i].hosts, host) && !slices.Contains(out, architectures[i]):
			out = append(out, architectures[i])
		}
	}
	return out, nil
}

// find returns the number of a call.
func (a *architecture) find(name string) (uint32, bool) {
	i := sort.Search(len(a.calls), func(i int) bool { return a.calls[i].name >= name })
	if i == len(a.calls) || a.calls[i].name != name {
		return 0, false
	}
	return a.calls[i].number, true
}

// multiplexed are the calls that i386 also makes through another one, whose first argument then says which
// (linux/net.h, linux/ipc.h).
var multiplexed = [...]struct {
	through string
	first   uint64 // of the first name
	names   []string
}{
	{"socketcall", 1, []string{
		"socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv", "sendto",
		"recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
	}},
	{"ipc", 1, []string{"semop", "semget", "semctl", "semtimedop"}},
	{"ipc", 11, []string{"msgsnd", "msgrcv", "msgget", "msgctl"}},
	{"ipc", 21, []string{"shmat", "shmdt", "shmget", "shmctl"}},
}

// throughAnother says by which call, and which first argument, the architecture makes a call too.
func (a *architecture) throughAnother(name string) (number uint32, first uint64, ok bool) {
	if a.name != specs.ArchX86 {
		return 0, 0, false
	}
	for _, m := range multiplexed {
		if i := slices.Index(m.names, name); i >= 0 {
			number, ok := a.find(m.through)
			return number, m.first + uint64(i), ok
		}
	}
	return 0, 0, false
}
