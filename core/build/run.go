package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/wire"
)

// runStep runs a command on a snapshot of its base and keeps what it writes there.
type runStep struct {
	*solve
	n *wire.BuildRun
}

func (r *runStep) base() result { return r.value(r.n.Base) }

func (r *runStep) describe() string {
	return printable("RUN "+strings.Join(r.n.Args, " "), maxHistory)
}

func (r *runStep) key(ctx context.Context) (string, error) {
	mounts := make([]any, 0, len(r.n.Mounts))
	for _, m := range r.n.Mounts {
		if m.Input == nil {
			r.use(cacheID(m.Cache))
			// What is in a cache does not count: that is what it is for.
			mounts = append(mounts, []any{"cache", m.Cache, m.Target, m.ReadOnly})
			continue
		}
		from := r.value(*m.Input)
		content := from.chain().String()
		if from.local != nil {
			d, err := from.local.digest(ctx, m.Path)
			if err != nil {
				return "", err
			}
			content = d.String()
		}
		mounts = append(mounts, []any{"input", content, path.Clean("/" + m.Path), m.Target})
	}
	return keyOf("run", []any{r.base().id(), r.n.Args, r.n.Env, r.n.Cwd, r.n.User, r.n.Network, mounts})
}

func (r *runStep) make(ctx context.Context, log *stepLog) (*image.Image, error) {
	return r.withSnapshot(ctx, r.base(), r.describe(), func(id string, root []mount.Mount) error {
		mounts, err := r.mounts(ctx)
		if err != nil {
			return err
		}
		config := r.base().config()
		cwd := under(config.WorkingDir, r.n.Cwd)
		if err := makeCwd(root, cwd); err != nil {
			return err
		}
		before, err := places(root, mounts)
		if err != nil {
			return err
		}
		code, err := r.o.Executor.RunStep(ctx, Step{
			ID: id, RootMounts: root, Mounts: mounts, Args: r.n.Args, Env: r.env(config.Env), Cwd: cwd,
			User: r.user(config.User), Network: r.n.Network, Hostname: "build", Stdout: log, Stderr: log,
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("run %s: %w", printable(strings.Join(r.n.Args, " "), maxTitle), err)
		}
		if code != 0 {
			return fault.New(fault.Invalid, "process %q did not complete successfully: exit code: %d", printable(strings.Join(r.n.Args, " "), maxTitle), code)
		}
		return removePlaces(root, before)
	})
}

func (r *runStep) user(ofImage string) string {
	if r.n.User != "" {
		return r.n.User
	}
	return ofImage
}

// defaultPath is what a container gets that sets no PATH, as with Docker.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// env is the image's environment with the step's, and the proxies that neither sets. SOURCE_DATE_EPOCH tells compilers and archivers that
// know of it to write the time that the files will have (reproducible-builds.org).
func (r *runStep) env(ofImage []string) []string {
	var env []string
	env = append(env, ofImage...)
	for _, k := range slices.Sorted(maps.Keys(r.n.Env)) {
		env = setEnv(env, k, r.n.Env[k])
	}
	defaults := map[string]string{"PATH": defaultPath, "SOURCE_DATE_EPOCH": strconv.FormatInt(r.base().created().Unix(), 10)}
	maps.Copy(defaults, r.graph.Proxies)
	for k, v := range defaults {
		if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, k+"=") }) {
			env = append(env, k+"="+v)
		}
	}
	slices.Sort(env[len(ofImage):])
	return env
}

// makeCwd makes the working directory when the image has none, as Docker does.
func makeCwd(root []mount.Mount, cwd string) error {
	if cwd == "/" {
		return nil
	}
	tree, err := openRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	dir, err := tree.MkdirAll(cwd, 0o755)
	if err != nil {
		return notDirectory(cwd, err)
	}
	return dir.Close()
}

// mounts makes what the step's mounts need on the host.
func (r *runStep) mounts(ctx context.Context) ([]mount.Mount, error) {
	var list []mount.Mount
	for _, m := range r.n.Mounts {
		var got mount.Mount
		var err error
		if m.Input == nil {
			got, err = r.cacheMount(m)
		} else {
			got, err = r.inputMount(ctx, m)
		}
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Target, err)
		}
		got.Target = path.Clean(m.Target)
		list = append(list, got)
	}
	return list, nil
}

const cacheIDLen = 32

func cacheID(name string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(name)))[:cacheIDLen] }

// cacheMount is a directory that steps of all builds share, and that is there the next time.
func (r *runStep) cacheMount(m wire.BuildMount) (mount.Mount, error) {
	dir := filepath.Join(r.o.Root, cacheName, cacheID(m.Cache))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return mount.Mount{}, err
	}
	if err := os.WriteFile(dir+nameSuffix, []byte(m.Cache), 0o600); err != nil {
		return mount.Mount{}, err
	}
	return bind(dir, m.ReadOnly), nil
}

func bind(source string, readOnly bool) mount.Mount {
	options := []string{"bind", "nosuid", "nodev"}
	if readOnly {
		options = append(options, "ro")
	}
	return mount.Mount{Type: "bind", Source: source, Options: options}
}

// inputMount shows a node's files. The whole of an image is mounted; of local files the directory is
// bound; a part of an image is copied out, because an overlay has no part that could be mounted.
func (r *runStep) inputMount(ctx context.Context, m wire.BuildMount) (mount.Mount, error) {
	from := r.value(*m.Input)
	part := path.Clean("/" + m.Path)
	switch {
	case from.local != nil:
		var source string
		err := r.read(from, func(root *linux.Root) error {
			f, err := root.Open(part, unix.O_PATH, 0)
			if err != nil {
				return missing(from.local.name, part, err)
			}
			defer f.Close()
			source, err = os.Readlink(procPath(f))
			return err
		})
		return bind(source, true), err
	case part == "/":
		mounts, err := r.o.Layers.View(from.chain())
		if err != nil {
			return mount.Mount{}, err
		}
		return mounts[0], nil
	}
	dir, err := os.MkdirTemp(r.temp, "input-")
	if err != nil {
		return mount.Mount{}, err
	}
	to, err := linux.OpenRoot(dir)
	if err != nil {
		return mount.Mount{}, err
	}
	defer to.Close()
	err = r.read(from, func(root *linux.Root) error {
		return (&copier{ctx: ctx, from: root, to: to}).copy(part, "/content")
	})
	return bind(filepath.Join(dir, "content"), true), err
}

// places returns, for the mounts whose target is not there, every path that mounting will make, the
// outermost first.
func places(root []mount.Mount, mounts []mount.Mount) ([]string, error) {
	if len(mounts) == 0 {
		return nil, nil
	}
	tree, err := openRoot(root)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	var made []string
	for _, m := range mounts {
		for p := m.Target; p != "/"; p = path.Dir(p) {
			f, err := tree.Open(p, unix.O_PATH, 0)
			if err == nil {
				f.Close()
				break
			}
			if !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("mount %s: %w", m.Target, err)
			}
			made = append(made, p)
		}
	}
	slices.Sort(made)
	return slices.Compact(made), nil
}

// removePlaces removes what was made for mounts to stand on: they are no part of the result. What the
// command has put there meanwhile stays.
func removePlaces(root []mount.Mount, made []string) error {
	if len(made) == 0 {
		return nil
	}
	tree, err := openRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	for _, p := range slices.Backward(made) {
		dir, err := tree.Open(path.Dir(p), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			continue // the command removed or replaced it
		}
		var st unix.Stat_t
		at, name := int(dir.Fd()), path.Base(p)
		err = unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
		case err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0:
			err = unix.Unlinkat(at, name, 0)
		}
		dir.Close()
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTEMPTY) {
			return fmt.Errorf("remove mount point %s: %w", p, err)
		}
	}
	return nil
}
