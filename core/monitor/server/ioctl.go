package server

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func ioctl(fd int, request uintptr, info *pidfdInfo) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(info)))
	return errno
}
