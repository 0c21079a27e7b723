package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// Device rules of v2 are a BPF program of type BPF_PROG_TYPE_CGROUP_DEVICE, which is asked at every
// mknod and open and answers 1 for yes. Its argument is
//
//	struct bpf_cgroup_dev_ctx { __u32 access_type; /* access << 16 | type */ __u32 major, minor; }
//
// The program is a handful of instructions for each rule, so that they are written here as numbers
// (Documentation/bpf/standardization/instruction-set.rst) and no library is needed.

// instruction is struct bpf_insn.
type instruction struct {
	op        uint8
	registers uint8 // source << 4 | destination
	offset    int16
	value     int32
}

// The instructions that are used: class | source | operation.
const (
	loadWord   = unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM
	moveReg    = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	moveValue  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	andValue   = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	shiftRight = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	// class JMP32 compares the lower halves of the registers: 64-bit comparisons extend the sign.
	jumpIfNot  = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	jumpIfSet  = unix.BPF_JMP32 | unix.BPF_JSET | unix.BPF_K
	exit       = unix.BPF_JMP | unix.BPF_EXIT
	devBlock   = 1 // BPF_DEVCG_DEV_BLOCK
	devChar    = 2 // BPF_DEVCG_DEV_CHAR
	rResult    = 0
	rContext   = 1
	rKind      = 2
	rMajor     = 4
	rMinor     = 5
	rUndecided = 3 // the bits of the access that no rule has decided yet
)

// deviceProgram compiles rules. The last that matches decides, so they are asked from the last to the
// first, for each kind of access by itself: a rule that allows reading and another that allows
// writing together allow to open for both.
func deviceProgram(allow bool, list []rule) []instruction {
	p := []instruction{
		{op: loadWord, registers: rContext<<4 | rKind},
		{op: moveReg, registers: rKind<<4 | rUndecided},
		{op: andValue, registers: rKind, value: 0xffff},
		{op: shiftRight, registers: rUndecided, value: 16},
		{op: loadWord, registers: rContext<<4 | rMajor, offset: 4},
		{op: loadWord, registers: rContext<<4 | rMinor, offset: 8},
	}
	answer := func(yes bool) []instruction {
		a := []instruction{{op: moveValue, registers: rResult}, {op: exit}}
		if yes {
			a[0].value = 1
		}
		return a
	}
	for i := len(list) - 1; i >= 0; i-- {
		r := list[i]
		var body []instruction
		if r.allow {
			body = append(body, instruction{op: andValue, registers: rUndecided, value: int32(anyAccess &^ r.access)})
			body = append(body, instruction{op: jumpIfNot, registers: rUndecided, offset: 2})
			body = append(body, answer(true)...)
		} else {
			body = append(body, instruction{op: jumpIfSet, registers: rUndecided, value: int32(r.access), offset: 1})
			body = append(body, instruction{op: unix.BPF_JMP | unix.BPF_JA, offset: 2})
			body = append(body, answer(false)...)
		}
		var tests []instruction
		switch r.kind {
		case 'b':
			tests = append(tests, instruction{op: jumpIfNot, registers: rKind, value: devBlock})
		case 'c':
			tests = append(tests, instruction{op: jumpIfNot, registers: rKind, value: devChar})
		}
		if r.major != wildcard {
			tests = append(tests, instruction{op: jumpIfNot, registers: rMajor, value: int32(uint32(r.major))})
		}
		if r.minor != wildcard {
			tests = append(tests, instruction{op: jumpIfNot, registers: rMinor, value: int32(uint32(r.minor))})
		}
		for j := range tests {
			tests[j].offset = int16(len(tests) - 1 - j + len(body))
		}
		p = append(append(p, tests...), body...)
	}
	return append(p, answer(allow)...)
}

func encode(p []instruction) []byte {
	code := make([]byte, 0, len(p)*8)
	for _, i := range p {
		registers := i.registers
		if bigEndian {
			registers = registers<<4 | registers>>4
		}
		code = append(code, i.op, registers)
		code = binary.NativeEndian.AppendUint16(code, uint16(i.offset))
		code = binary.NativeEndian.AppendUint32(code, uint32(i.value))
	}
	return code
}

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// loaded has the programs that were loaded last: containers with the same rules share one.
var loaded struct {
	sync.Mutex
	programs map[string]*os.File
}

// maxLoaded bounds the programs that are kept.
const maxLoaded = 16

// loadDeviceProgram loads a program, or finds it loaded. The file is not to be closed.
func loadDeviceProgram(code []byte) (*os.File, error) {
	loaded.Lock()
	defer loaded.Unlock()
	if f := loaded.programs[string(code)]; f != nil {
		return f, nil
	}
	fd, err := loadProgram(code)
	if err != nil {
		return nil, err
	}
	if loaded.programs == nil || len(loaded.programs) >= maxLoaded {
		loaded.programs = map[string]*os.File{} // those in use stay attached; a finalizer closes the files
	}
	f := os.NewFile(uintptr(fd), "bpf device program")
	loaded.programs[string(code)] = f
	return f, nil
}

func loadProgram(code []byte) (int, error) {
	license := append([]byte("Apache-2.0"), 0)
	// The beginning of union bpf_attr for BPF_PROG_LOAD.
	attr := struct {
		kind, count          uint32
		instructions         uint64
		license              uint64
		logLevel, logSize    uint32
		log                  uint64
		kernelVersion, flags uint32
		name                 [16]byte
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(code) / 8),
		instructions: pointer(code), license: pointer(license), name: [16]byte{'s', 'a', 'm', 'p', 'a', 'n'},
	}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	keep(code, license)
	if err != nil {
		return -1, fmt.Errorf("linux.resources.devices: load a BPF program of %d instructions: %w", attr.count, err)
	}
	return fd, nil
}

func pointer(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// bpf is bpf(2).
func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
		if errno == unix.EINTR || errno == unix.EAGAIN {
			continue
		}
		if errno != 0 {
			return -1, errno
		}
		return int(n), nil
	}
}

// attachment is the beginning of union bpf_attr for BPF_PROG_ATTACH and BPF_PROG_DETACH.
type attachment struct{ target, program, kind, flags uint32 }

// setUnifiedDevices attaches the program of the rules to a cgroup and then takes away those that
// were there: there is no moment without a rule.
func setUnifiedDevices(dir string, allow bool, list []rule) error {
	program, err := loadDeviceProgram(encode(deviceProgram(allow, list)))
	if err != nil {
		return err
	}
	fd, err := retryOpen(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	old, err := attached(fd)
	if err != nil {
		return fmt.Errorf("linux.resources.devices: programs of %s: %w", dir, err)
	}
	a := attachment{uint32(fd), uint32(program.Fd()), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&a), unsafe.Sizeof(a)); errors.Is(err, unix.EINVAL) && len(old) > 0 {
		return nil // the same program is attached: the rules have not changed
	} else if err != nil {
		return fault.New(fault.Internal, "linux.resources.devices: attach to %s: %w", dir, err)
	}
	for _, id := range old {
		if err := detach(fd, id); err != nil {
			return fmt.Errorf("linux.resources.devices: detach program %d from %s: %w", id, dir, err)
		}
	}
	return nil
}

// attached are the ids of the device programs of a cgroup.
func attached(fd int) ([]uint32, error) {
	ids := make([]uint32, 64)
	attr := struct {
		target, kind, flags, attachFlags uint32
		ids                              uint64
		count                            uint32
		_                                uint32
	}{target: uint32(fd), kind: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	keep(ids)
	if err != nil {
		return nil, err
	}
	return ids[:min(int(attr.count), len(ids))], nil
}

func detach(fd int, id uint32) error {
	byID := struct{ id, next, flags uint32 }{id: id}
	program, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&byID), unsafe.Sizeof(byID))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(program)
	a := attachment{target: uint32(fd), program: uint32(program), kind: unix.BPF_CGROUP_DEVICE}
	return linux.Retry(func() error {
		_, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&a), unsafe.Sizeof(a))
		return err
	})
}
