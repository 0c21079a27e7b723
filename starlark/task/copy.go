package task

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/script"
)

// endType is one end of a copy: a Place, or a path of the workspace as a string.
var endType = arg.Type{Name: "path of the workspace or place in a container", Convert: func(v starlark.Value) (any, *arg.Reject) {
	switch v := v.(type) {
	case *Place:
		return v, nil
	case starlark.String:
		return string(v), nil
	}
	reject := &arg.Reject{Expected: "a path of the workspace, or box.at(\"/path\")", Given: v}
	if _, ok := v.(*Box); ok {
		reject.Cure = `say where in the container: box.at("/path")`
	}
	return nil, reject
}}

func (r *runner) copyFunc() arg.Func {
	return arg.Func{
		Name: "copy", Of: "ctx", Positional: 2, Returns: "None",
		Doc:     "Copies a file, or a directory with all that is in it, between the workspace and a container, or between two containers. The copy is called dest, or keeps its name in dest when dest ends with a slash.",
		Example: `ctx.copy("app.conf", box.at("/etc/app.conf"))`,
		Params: []arg.Param{
			{Name: "source", Type: endType, Required: true, Doc: "What to copy."},
			{Name: "dest", Type: endType, Required: true, Doc: "Where to."},
		},
		Do: r.copy,
	}
}

func (r *runner) copy(c *arg.Call) (starlark.Value, error) {
	ctx := script.Context(c.Thread)
	content, name, err := r.source(ctx, c)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	switch dest := arg.Get[any](c, "dest").(type) {
	case *Place:
		dir, base := split(dest.path, name)
		renamed := rename(content, base)
		defer renamed.Close()
		if err := r.engine.CopyTo(ctx, dest.container, dir, renamed, client.CopyOptions{}); err != nil {
			return nil, failed(c, "dest", err)
		}
	case string:
		dir, base := split(dest, name)
		if err := r.receive(c, dir, base, content); err != nil {
			return nil, err
		}
	}
	return starlark.None, nil
}

// split takes a destination apart: the folder, and the copy's name in it.
func split(dest, name string) (dir, base string) {
	if strings.HasSuffix(dest, "/") || dest == "." || dest == "" {
		return dest, name
	}
	dir, base = path.Split(dest)
	if i := strings.LastIndexByte(base, ':'); i >= 0 && dir == "" { // ":file" is in the script's own folder
		dir, base = base[:i+1], base[i+1:]
	}
	return dir, base
}

// source opens the source as a tar, in which every name begins with the base name.
func (r *runner) source(ctx context.Context, c *arg.Call) (io.ReadCloser, string, error) {
	switch source := arg.Get[any](c, "source").(type) {
	case *Place:
		content, _, err := r.engine.CopyFrom(ctx, source.container, path.Clean(source.path))
		if err != nil {
			return nil, "", failed(c, "source", err)
		}
		return content, path.Base(source.path), nil
	case string:
		abs, err := r.session.Local(script.Caller(c.Thread), source)
		if err != nil {
			return nil, "", argument(c, "source", err)
		}
		rel, err := filepath.Rel(r.session.Root(), abs)
		if err != nil {
			return nil, "", argument(c, "source", err)
		}
		if _, err := lstat(r.session.Root(), rel); err != nil {
			return nil, "", argument(c, "source", fault.New(fault.NotFound, "%s: %w", r.session.Show(abs), reasonOf(err)))
		}
		base := filepath.Base(abs)
		pr, pw := io.Pipe()
		go func() { pw.CloseWithError(pack(ctx, pw, r.session.Root(), rel, base)) }()
		return pr, base, nil
	}
	return nil, "", c.Problem("source", "expected a path or a place")
}

func lstat(root, rel string) (fs.FileInfo, error) {
	workspace, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer workspace.Close() //nolint:errcheck // a handle of a directory
	return workspace.Stat(rel)
}

func reasonOf(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func argument(c *arg.Call, name string, err error) error {
	var p *diag.Problem
	if errors.As(err, &p) {
		p.Arg = name
		return p
	}
	return failed(c, name, err)
}

// pack writes a file or directory of the workspace as a tar. The workspace is an os.Root: no link
// leads out of it.
func pack(ctx context.Context, out io.Writer, root, rel, base string) error {
	workspace, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer workspace.Close() //nolint:errcheck // a handle of a directory
	w := tar.NewWriter(out)
	err = fs.WalkDir(workspace.FS(), filepath.ToSlash(rel), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		inside := strings.TrimPrefix(strings.TrimPrefix(name, filepath.ToSlash(rel)), "/")
		return packOne(w, workspace, name, path.Join(base, inside))
	})
	if err != nil {
		return err
	}
	return w.Close()
}

func packOne(w *tar.Writer, workspace *os.Root, name, as string) error {
	info, err := workspace.Lstat(name)
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = workspace.Readlink(name); err != nil {
			return err
		}
	}
	if !info.IsDir() && !info.Mode().IsRegular() && link == "" {
		return fmt.Errorf("%s: expected files, directories and links, got %s", name, info.Mode().Type())
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Uid, h.Gid, h.Uname, h.Gname = as, 0, 0, "", ""
	if info.IsDir() {
		h.Name += "/"
	}
	if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := workspace.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, io.LimitReader(f, h.Size))
	return err
}

// rename gives the first part of every name in a tar another name, hard links too.
func rename(r io.Reader, base string) io.ReadCloser {
	pr, pw := io.Pipe()
	go func() {
		w := tar.NewWriter(pw)
		err := entries(r, func(h *tar.Header, content io.Reader) error {
			h.Name = rebase(h.Name, base)
			if h.Typeflag == tar.TypeLink {
				h.Linkname = rebase(h.Linkname, base)
			}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			_, err := io.Copy(w, content)
			return err
		})
		if err == nil {
			err = w.Close()
		}
		pw.CloseWithError(err)
	}()
	return pr
}

func rebase(name, base string) string {
	_, rest, deeper := strings.Cut(strings.TrimPrefix(name, "./"), "/")
	if !deeper {
		return base
	}
	return base + "/" + rest
}

func entries(r io.Reader, each func(*tar.Header, io.Reader) error) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(h, t); err != nil {
			return err
		}
	}
}

// The most that a copy out of a container may bring.
const (
	maxCopyBytes = 8 << 30
	maxCopyFiles = 500_000
)

// receive unpacks a container's tar into the workspace. The container is not trusted: an os.Root
// keeps it in, and devices and hard links are refused.
func (r *runner) receive(c *arg.Call, dir, base string, content io.Reader) error {
	if dir == "" {
		dir = ":"
	}
	abs, err := r.session.Local(script.Caller(c.Thread), dir)
	if err != nil {
		return argument(c, "dest", err)
	}
	rel, err := filepath.Rel(r.session.Root(), abs)
	if err != nil {
		return argument(c, "dest", err)
	}
	workspace, err := os.OpenRoot(r.session.Root())
	if err != nil {
		return failed(c, "dest", err)
	}
	defer workspace.Close() //nolint:errcheck // a handle of a directory
	if err := workspace.MkdirAll(rel, 0o755); err != nil {
		return failed(c, "dest", err)
	}
	folder, err := workspace.OpenRoot(rel)
	if err != nil {
		return failed(c, "dest", err)
	}
	defer folder.Close() //nolint:errcheck // a handle of a directory
	files, left := maxCopyFiles, int64(maxCopyBytes)
	err = entries(content, func(h *tar.Header, data io.Reader) error {
		files--
		if left -= h.Size; left < 0 || files < 0 {
			return fault.New(fault.Invalid, "expected at most %d files and %d GiB", maxCopyFiles, maxCopyBytes>>30)
		}
		return unpack(folder, path.Clean(rebase(h.Name, base)), h, data)
	})
	if err != nil {
		return failed(c, "dest", err)
	}
	return nil
}

func unpack(folder *os.Root, name string, h *tar.Header, data io.Reader) error {
	if !filepath.IsLocal(name) {
		return fault.New(fault.Invalid, "entry %q: expected a path inside the copy", h.Name)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return folder.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		_ = folder.Remove(name) // an older copy
		return folder.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := folder.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644|fs.FileMode(h.Mode)&0o111)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, data)
		return errors.Join(err, f.Close())
	}
	return fault.New(fault.Invalid, "entry %q: expected files, directories and symbolic links", h.Name)
}
