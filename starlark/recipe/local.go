package recipe

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/patternmatcher"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/script"
)

// Local is files of the workspace that go with a build.
type Local struct {
	Name   string // in the graph
	Digest string // of names, modes, links and contents

	name, show string
	root       string // the workspace
	dir        string // relative to it
	file       string // the one file of dir that is meant, or ""
	entries    []entry
}

// entry is a file as it was found; just these are sent.
type entry struct {
	name string // relative, with slashes
	mode fs.FileMode
	size int64
	link string
}

// maxEntries bounds a local source.
const maxEntries = 1_000_000

// epoch is the time of every file that is sent: the same files are the same image, whenever they
// were checked out.
var epoch = time.Unix(0, 0).UTC()

var unsafeInNames = diag.Pattern(`[^a-zA-Z0-9_.-]+`)

func sanitize(s string) string {
	s = strings.Trim(unsafeInNames().ReplaceAllString(s, "-"), "-.")
	if len(s) > 100 {
		s = s[len(s)-100:]
	}
	if s == "" {
		return "files"
	}
	return s
}

// newLocal lists and hashes a directory or file. The workspace is an os.Root: no link leads out.
func newLocal(ctx context.Context, s *script.Session, abs string, ignore []string) (*Local, error) {
	rel, err := filepath.Rel(s.Root(), abs)
	if err != nil {
		return nil, err
	}
	l := &Local{name: sanitize(filepath.Base(abs)), show: s.Show(abs), root: s.Root(), dir: rel}
	workspace, err := os.OpenRoot(s.Root())
	if err != nil {
		return nil, err
	}
	defer workspace.Close() //nolint:errcheck // a handle of a directory
	info, err := workspace.Stat(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "%s: no such file or directory", l.show)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", l.show, errors.Unwrap(err))
	}
	if !info.IsDir() {
		l.dir, l.file = filepath.Split(rel)
		if l.dir == "" {
			l.dir = "."
		}
	}
	without, err := patternmatcher.New(ignore)
	if err != nil {
		return nil, fault.New(fault.Invalid, "ignore: %w", err)
	}
	dir, err := workspace.OpenRoot(l.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // a handle of a directory
	h := sha256.New()
	if l.file != "" {
		err = l.add(dir, l.file, h)
	} else {
		err = l.walk(ctx, dir, without, h)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", l.show, err)
	}
	l.Digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	return l, nil
}

func (l *Local) walk(ctx context.Context, dir *os.Root, without *patternmatcher.PatternMatcher, h io.Writer) error {
	return fs.WalkDir(dir.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		out, err := without.MatchesOrParentMatches(name)
		if err != nil {
			return err
		}
		if out {
			if d.IsDir() && !without.Exclusions() { // with exclusions something below may be meant
				return fs.SkipDir
			}
			return nil
		}
		if len(l.entries) >= maxEntries {
			return fmt.Errorf("expected at most %d files", maxEntries)
		}
		return l.add(dir, name, h)
	})
}

// add lists one file and hashes all that is sent of it.
func (l *Local) add(dir *os.Root, name string, h io.Writer) error {
	info, err := dir.Lstat(name)
	if err != nil {
		return err
	}
	e := entry{name: name, mode: info.Mode() & (fs.ModeType | fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)}
	switch {
	case e.mode.IsDir():
	case e.mode&fs.ModeSymlink != 0:
		if e.link, err = dir.Readlink(name); err != nil {
			return err
		}
		e.mode = fs.ModeSymlink | 0o777
	case e.mode.IsRegular():
		e.size = info.Size()
	default:
		return fmt.Errorf("%s: expected files, directories and links, got %s (leave it out with ignore = [%q])", name, e.mode.Type(), name)
	}
	fmt.Fprintf(h, "%q %o %d %q\n", e.name, uint32(e.mode), e.size, e.link)
	l.entries = append(l.entries, e)
	if !e.mode.IsRegular() {
		return nil
	}
	return copyFile(dir, e, h)
}

func copyFile(dir *os.Root, e entry, w io.Writer) error {
	f, err := dir.Open(e.name)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(w, io.LimitReader(f, e.size))
	if err == nil && n < e.size {
		err = fmt.Errorf("%s: the file became shorter while it was read", e.name)
	}
	return err
}

// WriteLocals sends the files of a build, below local/NAME/.
func (b *Build) WriteLocals(w *tar.Writer) error {
	for _, l := range b.Locals {
		if err := l.write(w); err != nil {
			return fmt.Errorf("%s: %w", l.show, err)
		}
	}
	return nil
}

func (l *Local) write(w *tar.Writer) error {
	workspace, err := os.OpenRoot(l.root)
	if err != nil {
		return err
	}
	defer workspace.Close() //nolint:errcheck // a handle of a directory
	dir, err := workspace.OpenRoot(l.dir)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // a handle of a directory
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path.Join("local", l.Name) + "/", Mode: 0o755, ModTime: epoch}); err != nil {
		return err
	}
	for _, e := range l.entries {
		h := &tar.Header{Name: path.Join("local", l.Name, e.name), Mode: int64(e.mode.Perm()), ModTime: epoch, Size: e.size, Linkname: e.link}
		for bit, octal := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
			if e.mode&bit != 0 {
				h.Mode |= octal
			}
		}
		switch {
		case e.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case e.mode&fs.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
		default:
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if err := copyFile(dir, e, w); err != nil {
				return err
			}
		}
	}
	return nil
}
