package runtime

import (
	"debug/elf"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// SealSelf returns a copy of the running program in a sealed memfd (memfd_create(2)). It is what is
// executed inside containers: through /proc/self/exe a container that takes the process over finds
// a file that nobody can write to, and not the host's program (CVE-2019-5736).
func SealSelf() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("seal this program: %w", err)
	}
	defer self.Close()
	if err := static(self); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("sampan-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|mfdExec)
	if err != nil { // MFD_EXEC came with Linux 6.3
		fd, err = unix.MemfdCreate("sampan-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("seal this program: memfd_create: %w", err)
	}
	sealed := os.NewFile(uintptr(fd), "sampan-init")
	if _, err := sealed.ReadFrom(self); err != nil {
		sealed.Close()
		return nil, fmt.Errorf("seal this program: %w", err)
	}
	// A file that is open for writing cannot be executed: what is executed is opened anew, and seals
	// make sure that nobody ever writes.
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(sealed.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		sealed.Close()
		return nil, fmt.Errorf("seal this program: %w", err)
	}
	return sealed, nil
}

// mfdExec is MFD_EXEC of linux/memfd.h.
const mfdExec = 0x10

// static refuses a program that needs a dynamic linker: it would be looked for in the container.
func static(self *os.File) error {
	program, err := elf.NewFile(self)
	if err != nil {
		return fmt.Errorf("seal this program: %w", err)
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			return fault.New(fault.Internal, "this program is linked dynamically and cannot run inside containers: build it with CGO_ENABLED=0")
		}
	}
	return nil
}
