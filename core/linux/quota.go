package linux

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// A project is a number that files have on XFS, and that what is made in a directory inherits from it (ioctl_xfs_fsgetxattr(2)).
// The kernel counts the bytes of all files with a number and keeps them below a limit, whoever writes, where the
// filesystem is mounted with prjquota (quotactl(2)).

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	Flags, ExtentSize, Extents, Project, CowExtentSize uint32
	_                                                  [8]byte
}

// From linux/fs.h, _IOR('X', 31, struct fsxattr) and _IOW('X', 32, struct fsxattr) of asm-generic/ioctl.h.
const (
	fsGetXattr       = 2<<30 | uint(unsafe.Sizeof(fsxattr{}))<<16 | 'X'<<8 | 31
	fsSetXattr       = 1<<30 | uint(unsafe.Sizeof(fsxattr{}))<<16 | 'X'<<8 | 32
	flagProjectAbove = 0x200 // FS_XFLAG_PROJINHERIT
)

// diskQuota is struct fs_disk_quota of linux/dqblk_xfs.h, with the fields that are set here.
type diskQuota struct {
	Version    int8
	Flags      int8
	Fields     uint16
	ID         uint32
	Hard, Soft uint64 // blocks of 512 bytes
	_          [4]uint64
	_          [4]int32 // times and warnings
	_          [3]uint64
	_          int32
	_          [2]uint16
	_          [8]byte
}

const (
	quotaVersion  = 1      // FS_DQUOT_VERSION
	quotaProject  = 2      // FS_PROJ_QUOTA, and PRJQUOTA
	quotaBlocks   = 4 | 8  // FS_DQ_BSOFT, FS_DQ_BHARD
	quotaGet      = 0x5803 // Q_XGETQUOTA
	quotaSetLimit = 0x5804 // Q_XSETQLIM
	quotaBlock    = 512
)

// Project returns the project of an open file or directory.
func Project(f *os.File) (uint32, error) {
	x, err := xattrOf(f)
	return x.Project, err
}

func xattrOf(f *os.File) (x fsxattr, err error) {
	return x, ioctl(f, fsGetXattr, unsafe.Pointer(&x))
}

func ioctl(f *os.File, request uint, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(arg)); e != 0 {
		return &os.PathError{Op: "ioctl", Path: f.Name(), Err: e}
	}
	return nil
}

// SetProject gives an open directory a project, which all has that is made in it from then on; 0 is none.
func SetProject(dir *os.File, id uint32) error {
	x, err := xattrOf(dir)
	if err != nil {
		return err
	}
	x.Project = id
	if x.Flags |= flagProjectAbove; id == 0 {
		x.Flags &^= flagProjectAbove
	}
	return ioctl(dir, fsSetXattr, unsafe.Pointer(&x))
}

// LimitProject bounds the bytes of a project on the filesystem of an open file; 0 is no limit. Where the filesystem does
// not keep such limits the error is fault.NotImplemented.
func LimitProject(on *os.File, id uint32, bytes uint64) error {
	blocks := bytes/quotaBlock + min(bytes%quotaBlock, 1)
	return quota(on, quotaSetLimit, &diskQuota{Version: quotaVersion, Flags: quotaProject, Fields: quotaBlocks, ID: id, Hard: blocks, Soft: blocks})
}

// EaseProject lets a project that has a limit have so many bytes more, until it is called with 0. The limit itself stays
// in the soft one, which is also what statfs(2) shows.
func EaseProject(on *os.File, id uint32, spare uint64) error {
	q := diskQuota{ID: id}
	if err := quota(on, quotaGet, &q); err != nil || q.Soft == 0 {
		return err
	}
	q.Version, q.Flags, q.Fields, q.Hard = quotaVersion, quotaProject, quotaBlocks, q.Soft+spare/quotaBlock
	return quota(on, quotaSetLimit, &q)
}

func quota(on *os.File, request uintptr, q *diskQuota) error {
	_, _, e := unix.Syscall6(unix.SYS_QUOTACTL_FD, on.Fd(), request<<8|quotaProject, uintptr(q.ID), uintptr(unsafe.Pointer(q)), 0, 0)
	if e == 0 {
		return nil
	}
	err := fmt.Errorf("limit project %d of %s: %w", q.ID, on.Name(), e)
	if errors.Is(e, unix.ENOSYS) || errors.Is(e, unix.ESRCH) || errors.Is(e, unix.ENOTSUP) || errors.Is(e, unix.EINVAL) {
		err = fault.As(fault.NotImplemented, err)
	}
	return err
}
