package initproc

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// console gives the container's first process a terminal, when it wants one, and shows it as
// /dev/console.
func (p *process) console() error {
	if !p.Spec.Process.Terminal {
		return nil
	}
	ptmx, err := p.root.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("process.terminal: expected a devpts filesystem at /dev/pts: %w", err)
	}
	var show func(slave *os.File) error
	if p.Made&unix.CLONE_NEWNS != 0 {
		show = p.showConsole
	}
	return p.terminal(ptmx, show)
}

// terminal makes the pair that the opened ptmx is the master of the terminal of this process, and
// sends the master to the parent.
func (p *process) terminal(ptmx *os.File, show func(slave *os.File) error) error {
	defer ptmx.Close()
	// What was opened may be a file that the container has put there (CVE-2025-52565).
	if pts, err := linux.IsFilesystem(ptmx, unix.DEVPTS_SUPER_MAGIC); err != nil || !pts {
		return fmt.Errorf("terminal: /dev/pts is not a devpts filesystem")
	}
	if st, err := linux.Fstat(ptmx); err != nil || uint64(st.Rdev) != unix.Mkdev(5, 2) { //nolint:unconvert // its type differs between architectures
		return fmt.Errorf("terminal: /dev/pts/ptmx is not the terminal multiplexer")
	}
	fd := int(ptmx.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("terminal: unlock: %w", err)
	}
	// By the master's own ioctl, not by a path: a path could lead to another terminal.
	number, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return fmt.Errorf("terminal: open the slave: %w", errno)
	}
	peer := int(number)
	slave := os.NewFile(uintptr(peer), "terminal")
	defer slave.Close()
	if size := p.Spec.Process.ConsoleSize; size != nil {
		ws := unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)}
		if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &ws); err != nil {
			return fmt.Errorf("process.consoleSize: %w", err)
		}
	}
	if err := slave.Chown(int(p.Spec.Process.User.UID), -1); err != nil {
		p.parent.warn("the terminal could not be given to user %d: %v", p.Spec.Process.User.UID, err)
	}
	if show != nil {
		if err := show(slave); err != nil {
			return err
		}
	}
	if err := p.parent.send(kindConsole, nil, ptmx); err != nil {
		return fmt.Errorf("terminal: send it to the caller: %w", err)
	}
	for std := range 3 {
		if err := unix.Dup3(peer, std, 0); err != nil {
			return fmt.Errorf("terminal: dup: %w", err)
		}
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("terminal: make it the controlling terminal: %w", err)
	}
	return nil
}

// showConsole binds the terminal at /dev/console.
func (p *process) showConsole(slave *os.File) error {
	mnt, err := linux.CloneTree(slave, "", false)
	if err != nil {
		return fmt.Errorf("/dev/console: %w", err)
	}
	defer mnt.Close()
	at, err := p.root.CreateFile("/dev/console", 0o666, 0o755)
	if err != nil {
		return fmt.Errorf("/dev/console: %w", err)
	}
	defer at.Close()
	// A symlink there may lead to a file of procfs, which the terminal would hide (CVE-2025-52565).
	if err := outsideProc(mount.Mount{Target: "/dev/console"})(at); err != nil {
		return err
	}
	return linux.MoveMount(mnt, at)
}
