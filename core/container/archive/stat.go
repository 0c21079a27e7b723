package archive

import (
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/wire"
)

func timeOf(t unix.Timespec) time.Time { return time.Unix(t.Unix()) }

// Stat describes a path in the root. A symbolic link at its end is not followed.
func Stat(root *linux.Root, name string) (wire.PathStat, error) {
	f, err := root.Open(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return wire.PathStat{}, err
	}
	defer f.Close()
	st, err := linux.Fstat(f)
	if err != nil {
		return wire.PathStat{}, err
	}
	s := wire.PathStat{Name: path.Base(path.Clean("/" + name)), Size: st.Size, Mode: uint32(FileMode(st.Mode)), Mtime: timeOf(st.Mtim).UTC().Format(time.RFC3339Nano)}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err := readlink(f, "")
		if err != nil {
			return s, err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(path.Clean("/"+name)), target)
		}
		s.LinkTarget = path.Clean(target)
	}
	return s, nil
}

// FileMode turns the mode of stat(2) into Go's, which the API speaks.
func FileMode(mode uint32) os.FileMode {
	m := os.FileMode(mode & 0o777)
	for bit, flag := range map[uint32]os.FileMode{unix.S_ISUID: os.ModeSetuid, unix.S_ISGID: os.ModeSetgid, unix.S_ISVTX: os.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= os.ModeDir
	case unix.S_IFLNK:
		m |= os.ModeSymlink
	case unix.S_IFIFO:
		m |= os.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= os.ModeSocket
	case unix.S_IFBLK:
		m |= os.ModeDevice
	case unix.S_IFCHR:
		m |= os.ModeDevice | os.ModeCharDevice
	}
	return m
}
