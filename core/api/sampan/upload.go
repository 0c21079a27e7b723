package sampan

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// limits bound what a build may send.
type limits struct {
	graph   int64 // bytes of graph.json
	entries int   // files, directories and links
	bytes   int64 // of all files together
}

var defaultLimits = limits{graph: 32 << 20, entries: 2 << 20, bytes: 128 << 30}

// An upload is what came with a build: the graph, and a directory for each local source.
//
//	graph.json                  first
//	local/<name>/...            files, directories, symbolic and hard links
//
// Everything is owned by root with the mode and time of the archive. Each source has a directory of
// its own that no entry gets out of, whatever its name or the links on its way (os.Root).
type upload struct {
	graph  wire.BuildGraph
	dir    string
	locals map[string]string
	roots  map[string]*os.Root
	dirs   []dirEntry // times and modes to be set last, as entries inside change them
	left   limits
}

type dirEntry struct {
	local, name string
	header      *tar.Header
}

// receive reads an archive. On an error nothing is left.
func receive(r io.Reader, tempDir string, l limits) (_ *upload, err error) {
	if err := os.MkdirAll(tempDir, 0o700); err != nil {
		return nil, fmt.Errorf("build upload: %w", err)
	}
	dir, err := os.MkdirTemp(tempDir, "build-")
	if err != nil {
		return nil, fmt.Errorf("build upload: %w", err)
	}
	u := &upload{dir: dir, locals: map[string]string{}, roots: map[string]*os.Root{}, left: l}
	defer func() {
		for _, root := range u.roots {
			root.Close() //nolint:errcheck // a handle of a directory
		}
		if err != nil {
			u.remove()
		}
	}()
	archive := tar.NewReader(r)
	if err := u.readGraph(archive); err != nil {
		return nil, err
	}
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, badArchive(err)
		}
		if err := u.unpack(h, archive); err != nil {
			return nil, err
		}
	}
	// What follows the end of the archive is padding. It is read so that the server sees the end of
	// the body, after which it notices a client that goes away.
	if _, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20)); err != nil {
		return nil, badArchive(err)
	}
	return u, u.finish()
}

func badArchive(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) { // ours: a disk that is full, for one
		return fmt.Errorf("build upload: %w", err)
	}
	return fault.New(fault.Invalid, "build upload: %w", err)
}

// remove deletes the files. It does not follow links.
func (u *upload) remove() { _ = os.RemoveAll(u.dir) }

func (u *upload) readGraph(archive *tar.Reader) error {
	h, err := archive.Next()
	if err != nil {
		return fault.New(fault.Invalid, "build upload: expected a tar archive that begins with graph.json: %w", err)
	}
	if path.Clean(h.Name) != "graph.json" || h.Typeflag != tar.TypeReg {
		return fault.New(fault.Invalid, "build upload: first entry %q: expected the file graph.json", h.Name)
	}
	if h.Size > u.left.graph {
		return fault.New(fault.Invalid, "build upload: graph.json: %d bytes: expected at most %d", h.Size, u.left.graph)
	}
	b, err := io.ReadAll(archive)
	if err != nil {
		return badArchive(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // a field that is not understood may be the one that matters
	if err := d.Decode(&u.graph); err != nil {
		return fault.New(fault.Invalid, "build upload: graph.json: %w", err)
	}
	if n := len(u.graph.Nodes); u.graph.Target < 0 || u.graph.Target >= n {
		return fault.New(fault.Invalid, "build upload: graph.json: target %d: expected the index of one of %d nodes", u.graph.Target, n)
	}
	// A source without a file has no entry, and is an empty directory.
	for i, n := range u.graph.Nodes {
		if n.Local == nil {
			continue
		}
		if _, err := u.root(n.Local.Name); err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
	}
	return nil
}

// root returns the directory of a local source, which is made the first time. Its place is named by
// a number, so that the name from outside is no part of a path.
func (u *upload) root(name string) (*os.Root, error) {
	if root, ok := u.roots[name]; ok {
		return root, nil
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > 255 {
		return nil, &fault.Field{Field: "local source", Given: name, Expected: "a name without slashes, of at most 255 bytes"}
	}
	if len(u.roots) >= 1000 {
		return nil, fault.New(fault.Invalid, "build upload: local source %q: expected at most 1000 sources", name)
	}
	dir := filepath.Join(u.dir, fmt.Sprint(len(u.roots)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("build upload: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("build upload: %w", err)
	}
	u.roots[name], u.locals[name] = root, dir
	return root, nil
}

// split takes an entry's name apart: "local/src/a/b" is "a/b" of the source src.
func split(name string) (local, inside string, err error) {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(name, "./"), "local/")
	local, inside, _ = strings.Cut(rest, "/")
	if !ok || local == "" || len(name) > 4096 {
		return "", "", fault.New(fault.Invalid, "build upload: entry %q: expected a name such as local/<source>/<path>", shorten(name))
	}
	if inside = path.Clean(inside); !filepath.IsLocal(inside) {
		return "", "", fault.New(fault.Invalid, "build upload: entry %q: expected a path inside the source", shorten(name))
	}
	return local, inside, nil
}

func shorten(name string) string {
	if len(name) > 200 {
		return name[:200] + "..."
	}
	return name
}

func (u *upload) unpack(h *tar.Header, content io.Reader) error {
	local, name, err := split(h.Name)
	if err != nil {
		return err
	}
	if u.left.entries--; u.left.entries < 0 {
		return fault.New(fault.Invalid, "build upload: expected at most %d files", defaultLimits.entries)
	}
	if u.left.bytes -= h.Size; u.left.bytes < 0 {
		return fault.New(fault.Invalid, "build upload: expected at most %d bytes of files", defaultLimits.bytes)
	}
	root, err := u.root(local)
	if err != nil {
		return err
	}
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return entryError(h, err)
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(name, 0o755); err != nil {
			return entryError(h, err)
		}
		u.dirs = append(u.dirs, dirEntry{local, name, h})
		return nil
	case tar.TypeReg:
		return entryError(h, writeFile(root, name, h, content))
	case tar.TypeSymlink:
		return entryError(h, root.Symlink(h.Linkname, name))
	case tar.TypeLink:
		of, target, err := split(h.Linkname)
		if err != nil {
			return err
		}
		if of != local {
			return fault.New(fault.Invalid, "build upload: entry %q: a link into another source", shorten(h.Name))
		}
		return entryError(h, root.Link(target, name))
	}
	return fault.New(fault.Invalid, "build upload: entry %q: type %q: expected files, directories and links", shorten(h.Name), h.Typeflag)
}

// machineErrors are the failures that are not the archive's: all others are a name that cannot be, a
// file where a directory ought to be, a link on the way out.
var machineErrors = []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM}

// entryError is nil, the machine's fault (a full disk) or the archive's.
func entryError(h *tar.Header, err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return fault.New(fault.Invalid, "build upload: entry %q: there is one of that name already", shorten(h.Name))
	case errors.As(err, &tooLarge), slices.ContainsFunc(machineErrors, func(e error) bool { return errors.Is(err, e) }):
		return fmt.Errorf("build upload: entry %q: %w", shorten(h.Name), err)
	}
	return fault.New(fault.Invalid, "build upload: entry %q: %w", shorten(h.Name), err)
}

func writeFile(root *os.Root, name string, h *tar.Header, content io.Reader) (err error) {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err := errors.Join(err, f.Chmod(h.FileInfo().Mode()), f.Close()); err != nil {
		return err
	}
	return root.Chtimes(name, h.ModTime, h.ModTime)
}

// finish sets modes and times of directories, the inner ones first.
func (u *upload) finish() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		d := u.dirs[i]
		root := u.roots[d.local]
		err := errors.Join(root.Chmod(d.name, d.header.FileInfo().Mode().Perm()), root.Chtimes(d.name, d.header.ModTime, d.header.ModTime))
		if err != nil {
			return entryError(d.header, err)
		}
	}
	return nil
}
