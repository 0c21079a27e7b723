package runtime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// SealSelf returns the running program as a file that nobody can write to by way of it. It is what is
// executed inside containers: a container that takes the process over reaches it as /proc/self/exe,
// and must not reach the host's program that way (CVE-2019-5736).
//
// It is the program on a mount of its own, read-only and attached nowhere: no copy is made, and no
// container can change a mount that is in no namespace of its own. Who may not mount gets a copy in
// memory, sealed (memfd_create(2)).
func SealSelf() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("seal this program: %w", err)
	}
	defer self.Close()
	if err := static(self); err != nil {
		return nil, err
	}
	if f, err := readonlyMount(self); err == nil {
		return f, nil
	}
	return sealedCopy(self, 0o755)
}

// initFor is the program of a process that is started so.
//
// Of one that enters a user namespace the memory would belong to that namespace once it executes the program, and to
// whoever has CAP_SYS_PTRACE there, while it still has every capability and no filter. The kernel leaves it with ours
// when the file is one that those in there cannot read (fs/exec.c, would_dump): a copy that is executable alone. It
// is made once, when it is needed. An ordinary user is root of the namespace, from whom nothing can be kept.
func (r *Runtime) initFor(s *linux.Spawn) (*os.File, error) {
	joinsUser := func(j linux.Join) bool { return j.Type&unix.CLONE_NEWUSER != 0 }
	if os.Geteuid() != 0 || !slices.ContainsFunc(s.Join, joinsUser) {
		return r.options.Init, nil
	}
	r.unreadable.Do(func() { r.unreadable.file, r.unreadable.err = unreadableCopy(r.options.Init) })
	return r.unreadable.file, r.unreadable.err
}

// score sets the OOM score adjustment of a process that executes the copy: its files in /proc are not its own then.
func (c *Container) score(pid int, program *os.File, process *specs.Process, clamp bool) (done bool, err error) {
	if process.OOMScoreAdj == nil || program == c.runtime.options.Init {
		return false, nil
	}
	score := strconv.Itoa(*process.OOMScoreAdj)
	err = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(score), 0)
	if errors.Is(err, unix.EACCES) && clamp {
		c.warn("the OOM score adjustment " + score + " is lower than this host allows and is left as it was")
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("process.oomScoreAdj %s: %w", score, err)
	}
	return true, nil
}

// unreadable is what initFor has made.
type unreadable struct {
	sync.Once
	file *os.File
	err  error
}

func unreadableCopy(program *os.File) (*os.File, error) {
	readable, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(program.Fd()))) // program is a handle alone
	if err != nil {
		return nil, fmt.Errorf("seal this program: %w", err)
	}
	defer readable.Close()
	return sealedCopy(readable, 0o711)
}

func readonlyMount(program *os.File) (*os.File, error) {
	mnt, err := linux.CloneTree(program, "", false)
	if err != nil {
		return nil, err
	}
	attributes := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := linux.SetMount(mnt, attributes, false); err != nil {
		mnt.Close()
		return nil, err
	}
	return mnt, nil
}

// mfdExec is MFD_EXEC of linux/memfd.h, which came with Linux 6.3.
const mfdExec = 0x10

func sealedCopy(program *os.File, mode fs.FileMode) (*os.File, error) {
	fd, err := unix.MemfdCreate("sampan-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|mfdExec)
	if err != nil {
		fd, err = unix.MemfdCreate("sampan-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("seal this program: memfd_create: %w", err)
	}
	sealed := os.NewFile(uintptr(fd), "sampan-init")
	if _, err := sealed.ReadFrom(program); err != nil {
		sealed.Close()
		return nil, fmt.Errorf("seal this program: %w", err)
	}
	if err := sealed.Chmod(mode); err != nil {
		sealed.Close()
		return nil, fmt.Errorf("seal this program: %w", err)
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(sealed.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		sealed.Close()
		return nil, fmt.Errorf("seal this program: %w", err)
	}
	return sealed, nil
}

// static refuses a program that needs a dynamic linker, which would be looked for in the container. The
// few fields are read here because package debug/elf costs every start of the init (elf(5)).
func static(program *os.File) error {
	const (
		headerSize  = 64
		programSize = 56 // of a program header of a 64-bit file
		interpreter = 3  // PT_INTERP
	)
	var header [headerSize]byte
	if _, err := program.ReadAt(header[:], 0); err != nil {
		return fmt.Errorf("seal this program: %w", err)
	}
	if !bytes.HasPrefix(header[:], []byte("\x7fELF\x02")) {
		return nil // a 32-bit machine's; the kernel says what is wrong
	}
	order := binary.NativeEndian
	offset, count := int64(order.Uint64(header[32:])), int64(order.Uint16(header[56:]))
	headers := make([]byte, count*programSize)
	if _, err := io.ReadFull(io.NewSectionReader(program, offset, int64(len(headers))), headers); err != nil {
		return fmt.Errorf("seal this program: %w", err)
	}
	for ; len(headers) > 0; headers = headers[programSize:] {
		if order.Uint32(headers) == interpreter {
			return fault.New(fault.Internal, "this program is linked dynamically and cannot run inside containers: build it with CGO_ENABLED=0")
		}
	}
	return nil
}
