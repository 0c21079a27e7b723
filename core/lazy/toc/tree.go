package toc

import (
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// Tree is the files of a layer in the form that the overlay takes for a lower layer: whiteouts are
// character devices 0/0, and a directory that hides the lower ones has an attribute
// (Documentation/filesystems/overlayfs.rst).
type Tree struct {
	Compression Compression
	Nodes       []*Node // the first is the root
	Size        int64   // bytes of its regular files and links, as Docker counts
	// Implied are the directories that the layer has files in but does not describe, "." for the root:
	// they have the attributes that the layers below give them.
	Implied []string

	index *Index // of a layer without a table of its own
}

// Node is a file. Hard links share one.
type Node struct {
	Mode     uint32 // with the type, as stat(2) has it
	UID, GID uint32
	Links    uint32
	Rdev     uint32
	Size     int64
	Mtime    time.Time
	Target   string // of a symbolic link
	Xattrs   map[string][]byte
	Chunks   []Chunk // in their order, without gaps

	Index    int // in Nodes
	Parent   int // of a directory
	children map[string]int
	names    []string
}

// Chunk is a part of a file that can be decompressed by itself, or in an indexed layer lies in one span.
type Chunk struct {
	At, Size    int64 // in the file
	Offset, End int64 // in the blob
	Inner       int64 // in what the blob's bytes decompress to
	Digest      digest.Digest
	span        int // of an indexed layer; the digest is the span's
}

// Names are the names in a directory, sorted.
func (n *Node) Names() []string { return n.names }

// Child returns the index of the file of a name in a directory.
func (n *Node) Child(name string) (int, bool) {
	i, ok := n.children[name]
	return i, ok
}

// IsDir reports whether it is a directory.
func (n *Node) IsDir() bool { return n.Mode&unix.S_IFMT == unix.S_IFDIR }

const (
	opaqueXattr    = "trusted.overlay.opaque"
	overlayXattrs  = "trusted.overlay."
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh."
)

// builder makes a tree, entry by entry, as core/layer unpacks a tar.
type builder struct {
	tree    *Tree
	bounds  []int64
	index   *Index // see cut
	ended   int64  // of an index: where the file before ends in the tar
	implied map[string]bool
	removed map[string]bool
	last    *Node // of the file that chunks belong to
}

func (t *table) tree() (*Tree, error) {
	b := &builder{tree: &Tree{}, bounds: t.bounds(), index: t.index, implied: map[string]bool{".": true}, removed: map[string]bool{}}
	b.dir(nil, "")
	for i := range t.entries {
		if err := b.add(&t.entries[i]); err != nil {
			return nil, fault.New(fault.ClassOf(err), "table of contents: %q: %w", t.entries[i].Name, err)
		}
	}
	return b.finish()
}

// refuse is for what is left to the ordinary unpacking.
func refuse(format string, args ...any) error {
	return fault.New(fault.NotImplemented, format, args...)
}

func (b *builder) node(n *Node) *Node {
	n.Index = len(b.tree.Nodes)
	b.tree.Nodes = append(b.tree.Nodes, n)
	return n
}

// dir makes a directory that nothing is known of.
func (b *builder) dir(parent *Node, name string) *Node {
	n := b.node(&Node{Mode: unix.S_IFDIR | 0o755, children: map[string]int{}, Mtime: time.Unix(0, 0)})
	if parent != nil {
		n.Parent = parent.Index
		parent.children[name] = n.Index
	}
	return n
}

func clean(name string) (string, error) {
	if strings.ContainsRune(name, 0) || len(name) >= unix.PathMax || slices.Contains(strings.Split(name, "/"), "..") {
		return "", refuse("its name is unusual")
	}
	p := path.Clean(strings.TrimLeft(name, "/"))
	for part := range strings.SplitSeq(p, "/") {
		if len(part) > unix.NAME_MAX {
			return "", refuse("its name is longer than %d bytes", unix.NAME_MAX)
		}
	}
	return p, nil
}

// parent returns the directory that has p, after making those on the way that are missing.
func (b *builder) parent(p string) (*Node, string, error) {
	at := b.tree.Nodes[0]
	dir, base := path.Split(p)
	walked := ""
	for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if part == "" {
			continue
		}
		walked = path.Join(walked, part)
		i, ok := at.children[part]
		if !ok {
			at = b.dir(at, part)
			b.implied[walked] = true
			if len(b.tree.Nodes) > maxEntries {
				return nil, "", refuse("the layer has more than %d files", maxEntries)
			}
			continue
		}
		if at = b.tree.Nodes[i]; !at.IsDir() {
			return nil, "", refuse("%q is not a directory", walked)
		}
	}
	return at, base, nil
}

func (b *builder) find(p string) *Node {
	at := b.tree.Nodes[0]
	for part := range strings.SplitSeq(p, "/") {
		i, ok := at.children[part]
		if !ok {
			return nil
		}
		at = b.tree.Nodes[i]
	}
	return at
}

func (b *builder) add(e *entry) error {
	if e.Type == "chunk" {
		return b.chunk(e)
	}
	b.last = nil
	p, err := clean(e.Name)
	if err != nil {
		return err
	}
	dir, base := path.Split(p)
	if strings.Contains("/"+dir, "/"+whiteoutPrefix) {
		return refuse("it is inside a whiteout")
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return b.whiteout(path.Clean(dir), base)
	}
	if p == "." {
		if e.Type != "dir" {
			return refuse("the root of a layer is not a directory")
		}
		delete(b.implied, p)
		return b.attributes(b.tree.Nodes[0], e)
	}
	return b.make(p, e)
}

func (b *builder) whiteout(dir, base string) error {
	name := strings.TrimPrefix(base, whiteoutPrefix)
	switch {
	case base == opaqueName && dir == ".":
		return refuse("the root is opaque")
	case base == opaqueName:
		n, _, err := b.parent(path.Join(dir, "."+whiteoutPrefix))
		if err != nil {
			return err
		}
		n.opaque()
		return nil
	case strings.HasPrefix(base, aufsPrefix):
		return nil
	case name == "" || name == "." || name == "..":
		return refuse("it is a whiteout of no name")
	}
	p := path.Join(dir, name)
	b.removed[p] = true
	parent, name, err := b.parent(p)
	if err != nil {
		return err
	}
	if i, ok := parent.children[name]; ok {
		if there := b.tree.Nodes[i]; there.IsDir() {
			there.opaque()
		}
		return nil
	}
	n := b.node(&Node{Mode: unix.S_IFCHR, Mtime: time.Unix(0, 0)})
	parent.children[name] = n.Index
	return nil
}

func (n *Node) opaque() {
	if n.Xattrs == nil {
		n.Xattrs = map[string][]byte{}
	}
	n.Xattrs[opaqueXattr] = []byte("y")
}

// make makes the file of an entry in the place of what an earlier entry made there.
func (b *builder) make(p string, e *entry) error {
	parent, base, err := b.parent(p)
	if err != nil {
		return err
	}
	i, there := parent.children[base]
	delete(b.implied, p)
	switch {
	case e.Type == "dir" && there && b.tree.Nodes[i].IsDir():
		n := b.tree.Nodes[i]
		opaque := n.Xattrs[opaqueXattr] != nil || b.removed[p]
		if err := b.attributes(n, e); err != nil {
			return err
		}
		if opaque {
			n.opaque()
		}
		return nil
	case e.Type == "dir":
		n := b.dir(parent, base)
		if err := b.attributes(n, e); err != nil {
			return err
		}
		if b.removed[p] {
			n.opaque()
		}
		return nil
	case e.Type == "hardlink":
		target, err := clean(e.LinkName)
		if err != nil {
			return err
		}
		n := b.find(target)
		if n == nil || n.IsDir() || n.Mode == unix.S_IFCHR || target == p {
			return refuse("hard link to %q, which this layer does not have", e.LinkName)
		}
		parent.children[base] = n.Index
		return nil
	}
	n := &Node{}
	if err := b.kind(n, e); err != nil {
		return err
	}
	b.node(n)
	parent.children[base] = n.Index
	return b.attributes(n, e)
}

// kind gives a file what its type has.
func (b *builder) kind(n *Node, e *entry) error {
	switch e.Type {
	case "reg":
		if e.Size < 0 || e.Size > math.MaxInt64-b.tree.Size {
			return refuse("its size is %d", e.Size)
		}
		n.Mode, n.Size = unix.S_IFREG, e.Size
		b.tree.Size += e.Size
		b.last = n
		if e.Size == 0 {
			return nil
		}
		if b.index != nil {
			return b.cut(n, e)
		}
		return b.chunk(e)
	case "symlink":
		if len(e.LinkName) == 0 || len(e.LinkName) >= unix.PathMax {
			return refuse("its target has %d bytes", len(e.LinkName))
		}
		n.Mode, n.Target, n.Size = unix.S_IFLNK, e.LinkName, int64(len(e.LinkName))
		b.tree.Size += n.Size
	case "fifo":
		n.Mode = unix.S_IFIFO
	case "char", "block":
		n.Mode = unix.S_IFBLK
		if e.Type == "char" {
			n.Mode = unix.S_IFCHR
		}
		if e.DevMajor < 0 || e.DevMinor < 0 || e.DevMajor >= 1<<12 || e.DevMinor >= 1<<20 || e.Type == "char" && e.DevMajor|e.DevMinor == 0 {
			return refuse("its device number is %d:%d", e.DevMajor, e.DevMinor)
		}
		n.Rdev = uint32(unix.Mkdev(uint32(e.DevMajor), uint32(e.DevMinor)))
	default:
		return refuse("its type is %q", e.Type)
	}
	return nil
}

// chunk adds a part to the file before.
func (b *builder) chunk(e *entry) error {
	n := b.last
	if n == nil {
		return refuse("a part without its file")
	}
	at := int64(0)
	if len(n.Chunks) > 0 {
		before := n.Chunks[len(n.Chunks)-1]
		at = before.At + before.Size
	}
	c := Chunk{At: e.ChunkOffset, Size: e.ChunkSize, Offset: e.Offset, Inner: e.InnerOffset, Digest: e.ChunkDigest}
	if c.Size == 0 {
		c.Size = n.Size - c.At
	}
	if c.Digest == "" && c.At == 0 && c.Size == n.Size {
		c.Digest = e.Digest
	}
	if err := c.Digest.Validate(); err != nil {
		return refuse("a part without a digest")
	}
	if c.At != at || c.Size <= 0 || c.Size > n.Size-c.At || c.Size > maxChunk || c.Inner < 0 || c.Inner > maxChunk {
		return refuse("its part at %d has %d bytes", c.At, c.Size)
	}
	i, found := slices.BinarySearch(b.bounds, c.Offset)
	if !found || i+1 >= len(b.bounds) {
		return refuse("its part at %d is at %d of the layer", c.At, c.Offset)
	}
	if c.End = b.bounds[i+1]; c.End-c.Offset > maxChunk {
		return refuse("its part at %d has %d bytes in the layer", c.At, c.End-c.Offset)
	}
	n.Chunks = append(n.Chunks, c)
	return nil
}

// attributes gives a file owner, mode, time and extended attributes.
func (b *builder) attributes(n *Node, e *entry) error {
	if e.UID < 0 || e.GID < 0 || e.UID >= math.MaxUint32 || e.GID >= math.MaxUint32 {
		return refuse("its owner is %d:%d", e.UID, e.GID)
	}
	n.UID, n.GID = uint32(e.UID), uint32(e.GID)
	mode := uint32(e.Mode) & 0o7777
	if n.Mode&unix.S_IFMT == unix.S_IFLNK {
		mode = 0o777 // symlink(7)
	}
	n.Mode = n.Mode&unix.S_IFMT | mode
	n.Mtime = time.Unix(0, 0)
	if e.ModTime != "" {
		t, err := time.Parse(time.RFC3339Nano, e.ModTime)
		if err != nil {
			return refuse("its time is %q", e.ModTime)
		}
		// The formats write the time that is not set, of the year 1, as such.
		if t.Year() > 1 {
			n.Mtime = t
		}
	}
	n.Xattrs = nil
	for key, value := range e.Xattrs {
		if strings.HasPrefix(key, overlayXattrs) || key == "" || len(key) > 255 || len(value) > 1<<16 {
			return refuse("its attribute %q is unusual", key)
		}
		// Only files and directories have attributes of users, xattr(7).
		if strings.HasPrefix(key, "user.") && n.Mode&unix.S_IFMT != unix.S_IFREG && !n.IsDir() {
			continue
		}
		if n.Xattrs == nil {
			n.Xattrs = map[string][]byte{}
		}
		n.Xattrs[key] = value
	}
	return nil
}

// finish checks that files are whole, counts links and sorts names.
func (b *builder) finish() (*Tree, error) {
	for _, n := range b.tree.Nodes {
		if n.Mode&unix.S_IFMT == unix.S_IFREG && n.Size > 0 {
			last := n.Chunks[len(n.Chunks)-1]
			if last.At+last.Size != n.Size {
				return nil, refuse("table of contents: a file has parts of %d bytes: expected %d", last.At+last.Size, n.Size)
			}
		}
		if !n.IsDir() {
			continue
		}
		n.Links = 2
		for name, i := range n.children {
			n.names = append(n.names, name)
			if c := b.tree.Nodes[i]; c.IsDir() {
				n.Links++
			}
		}
		slices.Sort(n.names)
	}
	for _, n := range b.tree.Nodes {
		for _, i := range n.children {
			if c := b.tree.Nodes[i]; !c.IsDir() {
				c.Links++
			}
		}
	}
	for p := range b.implied {
		// A later entry may have replaced what lay above it.
		if n := b.tree.Find(p); n != nil && n.IsDir() {
			b.tree.Implied = append(b.tree.Implied, p)
		}
	}
	slices.Sort(b.tree.Implied)
	return b.tree, nil
}

// Find returns the file at a clean path, nil for nothing.
func (t *Tree) Find(p string) *Node {
	if p == "." {
		return t.Nodes[0]
	}
	return (&builder{tree: t}).find(p)
}
