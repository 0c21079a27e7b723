// Package raw is what must come before, or below, the Go runtime: the system call that returns
// twice on one stack, and the soft limit of open files that the process was started with.
//
// The package imports nothing but unsafe. The language specification ("Package initialization")
// initializes packages sorted by import path, each as soon as its imports are; so this one comes
// before package sync and with it before package syscall, whose initialization raises the soft
// limit of open files to the hard one and keeps the old value to itself.
package raw

import "unsafe"

// NofileSoft and NofileHard are RLIMIT_NOFILE as it was when the process started. Both are 0 when
// the kernel did not tell.
var NofileSoft, NofileHard = startLimit()

func startLimit() (soft, hard uint64) {
	const rlimitNofile = 7 // asm-generic/resource.h
	var limit [2]uint64
	if getrlimit(rlimitNofile, unsafe.Pointer(&limit)) != 0 {
		return 0, 0
	}
	return limit[0], limit[1]
}

// getrlimit is prlimit64(0, resource, NULL, limit) and returns 0 or a negative error number.
//
//go:noescape
func getrlimit(resource uintptr, limit unsafe.Pointer) int

// Clone3 is clone3(2). It returns the child's pid, 0 in the child, or a negative error number.
//
// With CLONE_VM and CLONE_VFORK the child runs on the stack of its parent, which the kernel holds
// until the child is gone or has executed a program. The return address is therefore not kept on
// that stack but in a register, of which each of them has its own. The caller, in the child, must
// not return from the function that called Clone3.
//
//go:noescape
func Clone3(args unsafe.Pointer, size uintptr) int
