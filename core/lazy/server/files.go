package server

import (
	"bytes"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/lazy/toc"
)

// files is a layer as a filesystem. Its tree never changes, so that the number of a file is its place in the
// tree and the kernel may remember all that it was told.
type files struct {
	fuse.RawFileSystem
	tree    *toc.Tree
	settled *atomic.Bool // see layer
	// read returns a part of a file, verified.
	read func(*toc.Node, toc.Chunk) ([]byte, error)
}

// forever is how long the kernel may remember: the tree does not change.
const forever = (1 << 31) * time.Second

// timeout is how long the kernel may remember attributes.
func (f *files) timeout() time.Duration {
	if f.settled.Load() {
		return forever
	}
	return 0
}

func (f *files) String() string { return "sampan-lazy" }

// node returns the file of a number: 1 is the root (FUSE_ROOT_ID).
func (f *files) node(id uint64) *toc.Node {
	if id == 0 || id > uint64(len(f.tree.Nodes)) {
		return nil
	}
	return f.tree.Nodes[id-1]
}

func attributes(n *toc.Node, out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink, out.Rdev = uint64(n.Index+1), n.Mode, n.Links, n.Rdev
	out.Uid, out.Gid = n.UID, n.GID
	out.Size, out.Blksize = uint64(n.Size), 4096
	if n.IsDir() {
		out.Size = 4096 // as most filesystems say of a small one
	}
	out.Blocks = (out.Size + 511) / 512
	seconds, nanos := uint64(n.Mtime.Unix()), uint32(n.Mtime.Nanosecond())
	out.Atime, out.Mtime, out.Ctime = seconds, seconds, seconds
	out.Atimensec, out.Mtimensec, out.Ctimensec = nanos, nanos, nanos
}

func (f *files) describe(n *toc.Node, out *fuse.EntryOut) {
	out.NodeId, out.Generation = uint64(n.Index+1), 1
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(f.timeout())
	attributes(n, &out.Attr)
}

func (f *files) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	n := f.node(h.NodeId)
	if n == nil || !n.IsDir() {
		return fuse.ENOTDIR
	}
	i, ok := n.Child(name)
	if !ok {
		// Number 0 tells the kernel to remember that there is nothing.
		out.NodeId = 0
		out.SetEntryTimeout(forever)
		return fuse.OK
	}
	f.describe(f.tree.Nodes[i], out)
	return fuse.OK
}

func (f *files) Forget(uint64, uint64) {}

func (f *files) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := f.node(in.NodeId)
	if n == nil {
		return fuse.ENOENT
	}
	out.SetTimeout(f.timeout())
	attributes(n, &out.Attr)
	return fuse.OK
}

func (f *files) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

func (f *files) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n := f.node(h.NodeId)
	if n == nil || n.Mode&unix.S_IFMT != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	return []byte(n.Target), fuse.OK
}

func (f *files) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	n := f.node(h.NodeId)
	if n == nil {
		return 0, fuse.ENOENT
	}
	value, ok := n.Xattrs[name]
	if !ok {
		return 0, fuse.ENOATTR
	}
	return answer(value, dest)
}

func (f *files) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n := f.node(h.NodeId)
	if n == nil {
		return 0, fuse.ENOENT
	}
	names := make([]string, 0, len(n.Xattrs))
	for name := range n.Xattrs {
		names = append(names, name)
	}
	if len(names) == 0 {
		return 0, fuse.OK
	}
	slices.Sort(names)
	return answer([]byte(strings.Join(names, "\x00")+"\x00"), dest)
}

// answer gives a value, or its size to whoever asks with too little room (getxattr(2)).
func answer(value, dest []byte) (uint32, fuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

func (f *files) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := f.node(in.NodeId)
	switch {
	case n == nil:
		return fuse.ENOENT
	case in.Flags&unix.O_ACCMODE != unix.O_RDONLY:
		return fuse.EROFS
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

func (f *files) Release(<-chan struct{}, *fuse.ReleaseIn) {}

func (f *files) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// Read reads from all parts that the range touches. A part that cannot be had, or is not what its
// digest says, is an input/output error.
func (f *files) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := f.node(in.NodeId)
	if n == nil {
		return nil, fuse.ENOENT
	}
	at, end := int64(in.Offset), int64(in.Offset)+int64(len(buf))
	if end = min(end, n.Size); at < 0 || at >= end {
		return fuse.ReadResultData(nil), fuse.OK
	}
	i, _ := slices.BinarySearchFunc(n.Chunks, at, func(c toc.Chunk, at int64) int {
		if c.At+c.Size <= at {
			return -1
		}
		return 1
	})
	var out bytes.Buffer
	out.Grow(int(end - at))
	for ; i < len(n.Chunks) && at < end; i++ {
		c := n.Chunks[i]
		data, err := f.read(n, c)
		if err != nil {
			return nil, fuse.EIO
		}
		data = data[at-c.At : min(c.Size, end-c.At)]
		out.Write(data)
		at += int64(len(data))
	}
	return fuse.ReadResultData(out.Bytes()), fuse.OK
}

func (f *files) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if n := f.node(in.NodeId); n == nil || !n.IsDir() {
		return fuse.ENOTDIR
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	return fuse.OK
}

func (f *files) ReleaseDir(*fuse.ReleaseIn) {}

// entries calls add for the entries of a directory from the place that the kernel has come to, until
// add has no room.
func (f *files) entries(in *fuse.ReadIn, add func(fuse.DirEntry, *toc.Node) bool) fuse.Status {
	n := f.node(in.NodeId)
	if n == nil || !n.IsDir() {
		return fuse.ENOTDIR
	}
	names := n.Names()
	for at := in.Offset; at < uint64(len(names)+2); at++ {
		c, name := n, "."
		switch at {
		case 0:
		case 1:
			c, name = f.tree.Nodes[n.Parent], ".."
		default:
			name = names[at-2]
			i, _ := n.Child(name)
			c = f.tree.Nodes[i]
		}
		if !add(fuse.DirEntry{Name: name, Mode: c.Mode, Ino: uint64(c.Index + 1), Off: at + 1}, c) {
			break
		}
	}
	return fuse.OK
}

func (f *files) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.entries(in, func(e fuse.DirEntry, _ *toc.Node) bool { return out.AddDirEntry(e) })
}

func (f *files) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.entries(in, func(e fuse.DirEntry, n *toc.Node) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if e.Name != "." && e.Name != ".." { // of these the kernel takes no attributes
			f.describe(n, entry)
		}
		return true
	})
}

func (f *files) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, unix.NAME_MAX
	out.Blocks, out.Files = uint64(f.tree.Size+4095)/4096, uint64(len(f.tree.Nodes))
	return fuse.OK
}
