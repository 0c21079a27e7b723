package container

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

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// copyOptions are cp's.
type copyOptions struct {
	archive, follow, quiet bool
	warnings               io.Writer // nil: none are wanted
}

func newCopy(c *cli.CLI) *cobra.Command {
	var o copyOptions
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tsampan cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem", Args: cli.ExactArgs(2),
		Long: "Copy files/folders between a container and the local filesystem\n\nUse '-' as the source to read a tar archive from stdin\nand extract it to a directory destination in a container.\nUse '-' as the destination to stream a tar archive of a\ncontainer source to stdout.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("quiet") {
				o.quiet = !c.Out.IsTerminal()
			}
			o.warnings = c.Err
			return o.run(cmd.Context(), c, args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	f.BoolVarP(&o.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	return cli.Also(cmd, "sampan container cp, sampan cp")
}

// splitPlace takes CONTAINER:PATH apart; a path that begins with / or . is a local one, whatever
// colons it has.
func splitPlace(s string) (container, file string) {
	if strings.HasPrefix(s, "/") || strings.HasPrefix(s, ".") {
		return "", s
	}
	container, file, ok := strings.Cut(s, ":")
	if !ok {
		return "", s
	}
	return container, file
}

func (o copyOptions) run(ctx context.Context, c *cli.CLI, from, to string) error {
	fromContainer, source := splitPlace(from)
	toContainer, target := splitPlace(to)
	switch {
	case fromContainer != "" && toContainer != "":
		return fault.New(fault.Invalid, "copying between containers is not supported")
	case fromContainer == "" && toContainer == "":
		return fault.New(fault.Invalid, "must specify at least one container source")
	case source == "" || target == "":
		return fault.New(fault.Invalid, "cp: expected a path after the container's name")
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	var n int64
	if fromContainer != "" {
		n, err = o.fromContainer(ctx, c, engine, fromContainer, source, target)
	} else {
		n, err = o.toContainer(ctx, c, engine, toContainer, source, target)
	}
	if err == nil && !o.quiet && to != "-" {
		fmt.Fprintf(c.Err, "Successfully copied %s to %s\n", units.HumanSize(float64(n)), to)
	}
	return err
}

// contentsOnly reports a path whose end says "what is in the directory".
func contentsOnly(p string) bool { return p == "." || strings.HasSuffix(p, "/.") }

func (o copyOptions) fromContainer(ctx context.Context, c *cli.CLI, engine *client.Client, container, source, target string) (int64, error) {
	if o.follow {
		if stat, err := engine.ContainerStatPath(ctx, container, source); err == nil && stat.LinkTarget != "" {
			if path.IsAbs(stat.LinkTarget) {
				source = stat.LinkTarget
			} else {
				source = path.Join(path.Dir(path.Clean(source)), stat.LinkTarget)
			}
		}
	}
	archive, stat, err := engine.CopyFrom(ctx, container, source)
	if err != nil {
		return 0, err
	}
	defer archive.Close()
	if target == "-" {
		if c.Out.IsTerminal() {
			return 0, fault.New(fault.Invalid, "cowardly refusing to write a tar archive to a terminal")
		}
		return io.Copy(c.Out, archive)
	}
	dir, name, err := localTarget(target, source, fs.FileMode(stat.Mode).IsDir())
	if err != nil {
		return 0, err
	}
	counted := &counter{r: archive}
	err = o.unpack(counted, dir, name)
	return counted.n, err
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// cleanLocal resolves the dots of a local path by its text, as docker cp does: what is passed on the way need
// not be there. What its end says, "/" or "/.", stays.
func cleanLocal(p string) string {
	clean := filepath.Clean(p)
	switch {
	case strings.HasSuffix(p, "/.") && clean != "/":
		return clean + "/."
	case strings.HasSuffix(p, "/") && clean != "/":
		return clean + "/"
	}
	return clean
}

// maxLinks is how many links in a row the kernel follows (path_resolution(7)).
const maxLinks = 40

// pastLinks is where a link whose target is not there yet leads.
func pastLinks(p string) (string, error) {
	for range maxLinks {
		to, err := os.Readlink(p)
		if err != nil {
			return p, nil //nolint:nilerr // it is no link
		}
		if !filepath.IsAbs(to) {
			dir, err := filepath.EvalSymlinks(filepath.Dir(p))
			if err != nil {
				return "", err
			}
			to = filepath.Join(dir, to)
		}
		p = to
	}
	return "", &fs.PathError{Op: "open", Path: p, Err: unix.ELOOP}
}

// localTarget decides, as cp(1) does, into which directory something goes and under which name: "."
// means that the contents go into the directory itself.
func localTarget(target, source string, isDir bool) (dir, name string, err error) {
	target = cleanLocal(target)
	info, err := os.Stat(target)
	switch {
	case err == nil && info.IsDir():
		if isDir && contentsOnly(source) {
			return target, ".", nil
		}
		return target, path.Base(path.Clean(source)), nil
	case err == nil && isDir:
		return "", "", fault.New(fault.Invalid, "cp: cannot copy directory to %s: it is a file", target)
	case err == nil && !info.Mode().IsRegular():
		return "", "", fault.New(fault.Invalid, "cp: %s: expected a directory or a regular file, got a %s", target, kind(info.Mode()))
	case err == nil:
		// Of a link it is the target that is overwritten, as with cp(1).
		if target, err = filepath.EvalSymlinks(target); err != nil {
			return "", "", fault.New(fault.Invalid, "cp: %w", err)
		}
		return filepath.Dir(target), filepath.Base(target), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", "", fault.New(fault.Invalid, "cp: %w", err)
	case !isDir && strings.HasSuffix(target, "/"):
		return "", "", fault.New(fault.Invalid, "cp: %s: no such directory", target)
	}
	if target, err = pastLinks(filepath.Clean(target)); err != nil {
		return "", "", fault.New(fault.Invalid, "cp: %w", err)
	}
	dir, name = filepath.Split(target)
	if dir == "" {
		dir = "."
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", "", fault.New(fault.Invalid, "cp: %s: no such directory", dir)
	}
	return dir, name, nil
}

// kind is a word for what is no file.
func kind(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeDevice != 0:
		return "device"
	case mode&fs.ModeNamedPipe != 0:
		return "FIFO"
	case mode&fs.ModeSocket != 0:
		return "socket"
	}
	return "special file"
}

// unpack writes the archive below dir, where the archive's first entry takes the name. Nothing gets
// out of dir: names and links in the archive are a container's word.
func (o copyOptions) unpack(archive io.Reader, dir, name string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fault.New(fault.Invalid, "cp: %w", err)
	}
	defer root.Close() //nolint:errcheck // a handle of a directory
	u := unpacker{root: root, keepOwner: o.archive}
	r := tar.NewReader(archive)
	first := ""
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			o.warn(u.skipped)
			return u.finish()
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		clean := path.Clean("/" + h.Name)[1:]
		if clean == "" {
			clean = "."
		}
		if first == "" {
			first = clean
		}
		to, ok := rebase(clean, first, name)
		if !ok {
			return fault.New(fault.Invalid, "cp: the archive has %q beside %q", h.Name, first)
		}
		if h.Typeflag == tar.TypeLink {
			if h.Linkname, ok = rebase(path.Clean("/" + h.Linkname)[1:], first, name); !ok {
				return fault.New(fault.Invalid, "cp: the archive has a link from %q to %q, out of itself", to, h.Linkname)
			}
		}
		if err := u.entry(to, h, r); err != nil {
			return fmt.Errorf("cp: %w", err)
		}
	}
}

// rebase moves a name from below old to below new; "." is the top.
func rebase(name, old, to string) (string, bool) {
	rest := name
	if old != "." {
		var ok bool
		if rest, ok = strings.CutPrefix(name, old); !ok || rest != "" && rest[0] != '/' {
			return "", false
		}
	}
	return path.Join(to, rest), true
}

// unpacker makes the entries of an archive below a root.
type unpacker struct {
	root      *os.Root
	keepOwner bool
	dirs      []dirTimes
	skipped   []string // special files that only root can make
}

type dirTimes struct {
	name   string
	header *tar.Header
}

func (u *unpacker) entry(name string, h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		if err := u.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		u.dirs = append(u.dirs, dirTimes{name, h})
		return u.owner(name, h)
	case tar.TypeReg:
		return u.file(name, h, content)
	case tar.TypeSymlink:
		if err := u.replace(name); err != nil {
			return err
		}
		return errors.Join(u.root.Symlink(h.Linkname, name), u.owner(name, h))
	case tar.TypeLink:
		if err := u.replace(name); err != nil {
			return err
		}
		return u.root.Link(h.Linkname, name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.special(name, h)
	}
	return fault.New(fault.Invalid, "%s is a %s: expected files, directories, links, devices and FIFOs", name, kind(h.FileInfo().Mode()))
}

// special makes a device or FIFO. Where that is forbidden, as devices are to all but root, it is
// skipped and the others are copied.
func (u *unpacker) special(name string, h *tar.Header) error {
	if err := u.replace(name); err != nil {
		return err
	}
	dir, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	at, base, mode, bits := int(dir.Fd()), path.Base(name), h.FileInfo().Mode(), uint32(unix.S_IFIFO)
	switch h.Typeflag {
	case tar.TypeChar:
		bits = unix.S_IFCHR
	case tar.TypeBlock:
		bits = unix.S_IFBLK
	}
	permissions := uint32(mode.Perm())
	if bits != unix.S_IFIFO && !u.keepOwner {
		permissions &= 0o600 // which device it is was a container's word: not for everybody on the host
	}
	err = unix.Mknodat(at, base, bits|permissions, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	if errors.Is(err, unix.EPERM) {
		u.skipped = append(u.skipped, fmt.Sprintf("%s (%s)", name, kind(mode)))
		return nil
	}
	if err != nil {
		return fmt.Errorf("make the %s %s: %w", kind(mode), name, err)
	}
	return errors.Join(u.owner(name, h), unix.Fchmodat(at, base, permissions, 0), u.root.Chtimes(name, h.ModTime, h.ModTime))
}

// maxNamed bounds the names in a warning.
const maxNamed = 10

func (o copyOptions) warn(skipped []string) {
	if len(skipped) == 0 || o.warnings == nil {
		return
	}
	more := ""
	if n := len(skipped) - maxNamed; n > 0 {
		skipped, more = skipped[:maxNamed], fmt.Sprintf(" and %d more", n)
	}
	fmt.Fprintf(o.warnings, "WARNING: skipped what only root can make: %s%s\n", strings.Join(skipped, ", "), more)
}

// replace removes what is in the way of something that is no directory.
func (u *unpacker) replace(name string) error {
	info, err := u.root.Lstat(name)
	if err != nil || info.IsDir() {
		if info != nil {
			return fault.New(fault.Exists, "%s is a directory", name)
		}
		return nil
	}
	return u.root.Remove(name)
}

func (u *unpacker) file(name string, h *tar.Header, content io.Reader) error {
	if err := u.replace(name); err != nil {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err := errors.Join(err, u.owner(name, h), f.Chmod(h.FileInfo().Mode()), f.Close()); err != nil {
		return err
	}
	return u.root.Chtimes(name, h.ModTime, h.ModTime)
}

func (u *unpacker) owner(name string, h *tar.Header) error {
	if !u.keepOwner {
		return nil
	}
	return u.root.Lchown(name, h.Uid, h.Gid)
}

// finish sets modes and times of directories, the inner ones first.
func (u *unpacker) finish() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		d := u.dirs[i]
		if err := errors.Join(u.root.Chmod(d.name, d.header.FileInfo().Mode()), u.root.Chtimes(d.name, d.header.ModTime, d.header.ModTime)); err != nil {
			return err
		}
	}
	return nil
}

func (o copyOptions) toContainer(ctx context.Context, c *cli.CLI, engine *client.Client, container, source, target string) (int64, error) {
	put := client.CopyOptions{CopyUIDGID: o.archive}
	if !path.IsAbs(target) {
		target = "/" + target // a container's paths begin at its root
	}
	stat, statErr := engine.ContainerStatPath(ctx, container, target)
	if statErr == nil && stat.LinkTarget != "" { // of a link it is the target that counts
		if link := stat.LinkTarget; path.IsAbs(link) {
			target = link
		} else {
			target = path.Join(path.Dir(path.Clean(target)), link)
		}
		stat, statErr = engine.ContainerStatPath(ctx, container, target)
	}
	if statErr != nil && !fault.Is(statErr, fault.NotFound) {
		return 0, statErr
	}
	if source == "-" {
		if statErr == nil && !isDirectory(stat) {
			return 0, fault.New(fault.Invalid, "destination \"%s:%s\" must be a directory", container, target)
		}
		counted := &counter{r: c.In}
		err := engine.CopyTo(ctx, container, target, counted, put)
		return counted.n, err
	}
	source = cleanLocal(source)
	if o.follow {
		resolved, err := filepath.EvalSymlinks(source)
		if err != nil {
			return 0, fault.New(fault.Invalid, "cp: %w", err)
		}
		source = resolved
	}
	info, err := os.Lstat(source)
	if err != nil {
		return 0, fault.New(fault.Invalid, "cp: %w", err)
	}
	dir, name := path.Split(path.Clean(target))
	switch {
	case statErr == nil && isDirectory(stat) && info.IsDir() && contentsOnly(source):
		dir, name = target, "."
	case statErr == nil && isDirectory(stat):
		dir, name = target, baseName(source)
	case statErr == nil && info.IsDir():
		return 0, fault.New(fault.Invalid, "cannot copy a directory to %s:%s: it is a file", container, target)
	case statErr != nil && strings.HasSuffix(target, "/") && !info.IsDir():
		return 0, fault.New(fault.Invalid, "%s:%s: no such directory", container, target)
	}
	r, w := io.Pipe()
	counted := &counter{r: r}
	go func() { w.CloseWithError(pack(w, source, name)) }()
	err = engine.CopyTo(ctx, container, dir, counted, put)
	_ = r.Close() // ends pack, which may be waiting to write
	return counted.n, err
}

func isDirectory(stat wire.PathStat) bool { return fs.FileMode(stat.Mode).IsDir() }

// baseName is the last part of a local path, also of "." and "..".
func baseName(p string) string {
	if abs, err := filepath.Abs(p); err == nil {
		return filepath.Base(abs)
	}
	return filepath.Base(p)
}
