package jsonlog

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// packed returns the name of the file that was rotated i times, and packed.
func packed(path string, i int) string { return rotated(path, i) + ".gz" }

// stamp is what a packed file carries of the one that it was made of (gzip's extra field, RFC 1952, section
// 2.3.1.1): who has read the one must not read the other once more. The inode's number is not enough, as the
// next file may get the number of one that was removed; so a file gets a time of its own, to the nanosecond,
// before it is packed.
type stamp struct {
	dev, ino uint64
	time     int64
}

// extraID begins the subfield: two letters that say what it is, and the length of what follows.
var extraID = []byte{'S', 'P', 24, 0}

func stampOf(info os.FileInfo) stamp {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}
	}
	return stamp{st.Dev, st.Ino, info.ModTime().UnixNano()}
}

func (s stamp) extra() []byte {
	b := append([]byte(nil), extraID...)
	for _, n := range []uint64{s.dev, s.ino, uint64(s.time)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

func stampOfExtra(b []byte) (s stamp) {
	if len(b) == len(extraID)+24 && string(b[:len(extraID)]) == string(extraID) {
		s.dev, s.ino, s.time = binary.LittleEndian.Uint64(b[4:]), binary.LittleEndian.Uint64(b[12:]), int64(binary.LittleEndian.Uint64(b[20:]))
	}
	return s
}

// pack packs the file that was rotated last. One that cannot be packed stays as it is, and can be read all
// the same; what a crash leaves of it is overwritten by the next.
func pack(path string) {
	from, to := rotated(path, 1), packed(path, 1)
	unfinished := path + ".packing"
	if err := packFile(from, unfinished); err != nil {
		os.Remove(unfinished)
		return
	}
	// Readers look for the plain one first, so that there is always exactly one for them.
	if os.Rename(unfinished, to) == nil {
		os.Remove(from)
	}
}

func packFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.Chtimes(from, time.Time{}, time.Now()); err != nil { // see stamp
		return err
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed) // the container may be waiting for the next rotation
	if err != nil {
		return err
	}
	z.Extra = stampOf(info).extra()
	if _, err = io.Copy(z, in); err != nil {
		return err
	}
	if err = z.Close(); err != nil {
		return err
	}
	return os.Chtimes(to, time.Time{}, info.ModTime()) // by which readers pass it over
}

// part is a file of a log. A packed one is unpacked when it is read, into a file without a name.
type part struct {
	*os.File
	info   os.FileInfo
	stamp  stamp // of a packed one
	gzip   bool
	packed bool // still
}

// same reports whether two that are open have the same entries.
func (p *part) same(o *part) bool {
	switch {
	case p.gzip && o.gzip:
		return p.stamp == o.stamp
	case p.gzip:
		return o.same(p)
	case o.gzip:
		now, err := p.Stat()
		return err == nil && stampOf(now) == o.stamp
	}
	return os.SameFile(p.info, o.info)
}

// openPart opens the file that was rotated i times, in either form.
func openPart(path string, i int) (*part, error) {
	const flags = os.O_RDONLY | syscall.O_NONBLOCK
	f, err := os.OpenFile(rotated(path, i), flags, 0)
	isPacked := false
	if errors.Is(err, fs.ErrNotExist) && i > 0 {
		isPacked = true
		f, err = os.OpenFile(packed(path, i), flags, 0)
	}
	if err != nil {
		return nil, err
	}
	p := &part{File: f, gzip: isPacked, packed: isPacked}
	p.info, err = f.Stat()
	switch {
	case err != nil:
	case !p.info.Mode().IsRegular():
		err = errors.New(f.Name() + " is not a regular file")
	case isPacked:
		p.stamp = stampOf(p.info) // of one that a power loss has damaged
		if z, damaged := gzip.NewReader(bufio.NewReader(f)); damaged == nil {
			p.stamp = stampOfExtra(z.Extra)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

// unpack makes a packed file readable at any place. Of a damaged one it is what comes before the damage.
func (p *part) unpack() error {
	if !p.packed {
		return nil
	}
	if _, err := p.Seek(0, io.SeekStart); err != nil {
		return err
	}
	fd, err := unix.Open(filepath.Dir(p.Name()), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "unpack", Path: p.Name(), Err: err}
	}
	plain := os.NewFile(uintptr(fd), p.Name())
	if z, damaged := gzip.NewReader(bufio.NewReader(p.File)); damaged == nil {
		_, err = io.Copy(plain, z)
	}
	if full := (*os.PathError)(nil); !errors.As(err, &full) { // else it is the packed file's
		_, err = plain.Seek(0, io.SeekStart)
	}
	if err != nil {
		plain.Close()
		return err
	}
	p.Close()
	p.File, p.packed = plain, false
	return nil
}
