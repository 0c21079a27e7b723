package linux

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux/raw"
)

// moreFiles is whether MoreFiles has changed the limit.
var moreFiles atomic.Bool

// mostFiles is the kernel's own bound, as it is unless somebody changes it (proc_sys_fs(5), nr_open).
const mostFiles = 1 << 20

// MoreFiles raises this process's limit of open files, soft and hard, as far as it goes, where the hard one is
// lower and the kernel permits it (CAP_SYS_RESOURCE, getrlimit(2)). What Spawn starts has the limits of before; what
// os/exec starts has the new ones, as it gives back only a limit that it finds as it left it.
func MoreFiles() {
	if raw.NofileHard >= mostFiles || raw.NofileHard == 0 {
		return
	}
	limit := unix.Rlimit{Cur: mostFiles, Max: mostFiles}
	_, _, e := syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if e == 0 {
		moreFiles.Store(true)
	}
}
