package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/lazy"
	"github.com/sampan-project/sampan/core/lazy/cache"
	"github.com/sampan-project/sampan/core/lazy/toc"
	"github.com/sampan-project/sampan/core/registry"
)

// layer is one layer that is shown.
type layer struct {
	request lazy.OpenRequest // the first, without the login
	log     *slog.Logger
	blob    *cache.Blob
	tree    *toc.Tree
	server  *fuse.Server
	parts   *recent
	flights singleflight.Group

	ctx    context.Context //nolint:containedctx // of its fetches: until the kernel lets go of it
	cancel context.CancelFunc
	whole  chan struct{} // closed when the blob is whole
	kick   chan struct{} // wakes the fetch of the whole after an error

	// settled says that directories have the attributes that they will keep.
	settled atomic.Bool
}

// openLayer reads the table of a layer and mounts its files.
func openLayer(ctx context.Context, r lazy.OpenRequest, parts *recent, log *slog.Logger) (_ *layer, err error) {
	l := &layer{request: r, log: log.With("layer", r.Chain.String(), "blob", r.Blob.Digest.String()), parts: parts, whole: make(chan struct{}), kick: make(chan struct{}, 1)}
	if l.blob, err = cache.Open(r.Cache, r.Blob.Size); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.blob.Remove() //nolint:errcheck // the error is that of the opening
			if l.tree != nil {
				l.tree.Close() //nolint:errcheck // the same
			}
		}
	}()
	if err := l.from(r); err != nil {
		return nil, err
	}
	l.request.Auth = nil
	if l.tree, err = l.table(ctx); err != nil {
		return nil, err
	}
	if r.Attributes != nil {
		l.settle(r.Attributes)
	}
	if err := l.mount(r.At); err != nil {
		return nil, err
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	go l.fill()
	return l, nil
}

// table reads the table of the layer.
func (l *layer) table(ctx context.Context) (*toc.Tree, error) {
	if l.request.Index != "" {
		return l.index(ctx)
	}
	tree, err := toc.Read(l.blob.At(ctx), l.request.Blob)
	// A cache that lost power in the middle of a write must not stand in the way for ever.
	if l.blob.Have() == 0 || !fault.Is(err, fault.Invalid) {
		return tree, err
	}
	if err := l.blob.Forget(0, l.request.Blob.Size); err != nil {
		return nil, err
	}
	return toc.Read(l.blob.At(ctx), l.request.Blob)
}

// index opens the index of the layer. It stays with what is fetched of the layer, so that it can be shown again whatever
// becomes of the directory of indexes. One that is damaged is removed: the next pull makes it anew.
func (l *layer) index(ctx context.Context) (*toc.Tree, error) {
	r := l.request
	mine := filepath.Join(r.Cache, "index")
	if _, err := os.Stat(mine); err != nil {
		if err := os.Link(r.Index, mine); err != nil {
			return nil, fault.New(fault.NotFound, "index: %w", err)
		}
		now := time.Now()
		os.Chtimes(r.Index, now, now) //nolint:errcheck // it is for the order in which they are removed
	}
	tree, err := toc.OpenIndex(mine, r.Blob, r.DiffID)
	if fault.Is(err, fault.Invalid) {
		os.Remove(mine)
		os.Remove(r.Index)
	}
	if err != nil {
		return nil, err
	}
	// Nothing was asked of the registry so far: it must have the layer, and give parts of it.
	if err := l.blob.Read(ctx, make([]byte, 1), 0); err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return tree, nil
}

// from says where the layer comes from; a later call may bring a fresh login.
func (l *layer) from(r lazy.OpenRequest) error {
	client := registry.New(registry.Options{Insecure: r.Insecure, Mirrors: r.Mirrors, Logger: l.log})
	parts, err := client.Parts(r.Name, r.Auth)
	if err != nil {
		return err
	}
	blob := r.Blob
	l.blob.SetFetch(func(ctx context.Context, at, n int64) (io.ReadCloser, error) { return parts.Open(ctx, blob, at, n) })
	select {
	case l.kick <- struct{}{}:
	default:
	}
	return nil
}

// settle gives the directories that the layer does not describe what they have from below. It is for
// the time before anybody looks at them: the kernel remembers them from then on.
func (l *layer) settle(attributes map[string]lazy.Attributes) {
	for _, dir := range l.tree.Implied {
		a, ok := attributes[dir]
		n := l.tree.Find(dir)
		if !ok || n == nil {
			continue
		}
		n.Mode, n.UID, n.GID, n.Mtime = unix.S_IFDIR|a.Mode&0o7777, a.UID, a.GID, a.Mtime
		xattrs := map[string][]byte{}
		for key, value := range n.Xattrs { // it may be opaque
			xattrs[key] = value
		}
		for key, value := range a.Xattrs {
			xattrs[key] = []byte(value)
		}
		n.Xattrs = xattrs
	}
	l.settled.Store(true)
}

// mount mounts the files. The host's own users cannot walk to them, and no program of theirs is anything
// but a file here; in a container the mount that counts is the overlay.
func (l *layer) mount(at string) (err error) {
	if err := lazy.Clear(at); err != nil {
		return fmt.Errorf("mount layer: %w", err)
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		return fmt.Errorf("mount layer: %w", err)
	}
	acl := false
	for _, n := range l.tree.Nodes {
		for key := range n.Xattrs {
			acl = acl || strings.HasPrefix(key, "system.posix_acl_")
		}
	}
	l.server, err = fuse.NewServer(&files{fuse.NewDefaultRawFileSystem(), l.tree, &l.settled, l.part}, at, &fuse.MountOptions{
		DirectMountStrict: true, DirectMountFlags: unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV,
		AllowOther: true, Options: []string{"default_permissions"},
		FsName: "sampan", Name: "sampan-lazy", MaxWrite: 1 << 20, MaxReadAhead: 1 << 20, EnableAcl: acl, EnableSymlinkCaching: true,
	})
	if err != nil {
		os.Remove(at)
		return fault.New(fault.NotImplemented, "mount layer: %w", err)
	}
	return nil
}

// serve answers the kernel until it has let go of the filesystem: it is unmounted, and no container has it.
func (l *layer) serve() {
	l.server.Serve()
	l.cancel()
}

// part returns a part of a file: from memory, from what has been fetched, or from the registry.
func (l *layer) part(_ *toc.Node, c toc.Chunk) ([]byte, error) {
	unit, from := l.tree.Unit(c)
	key := partKey{l, unit.Offset, unit.Inner}
	if data, ok := l.parts.get(key); ok {
		return data[from : from+c.Size], nil
	}
	v, err, _ := l.flights.Do(strconv.FormatInt(unit.Offset, 16)+"+"+strconv.FormatInt(unit.Inner, 16), func() (any, error) {
		data, err := l.fetch(unit)
		if err == nil {
			l.parts.put(key, data)
		}
		return data, err
	})
	if err != nil {
		l.log.Error("a part of the layer cannot be read: the container gets an input/output error", "offset", c.Offset, "error", err)
		return nil, err
	}
	return v.([]byte)[from : from+c.Size], nil
}

// fetch reads what is decompressed at once, and verifies it. What was in the cache and is wrong is fetched once more.
func (l *layer) fetch(c toc.Chunk) ([]byte, error) {
	packed := make([]byte, c.End-c.Offset)
	for try := 0; ; try++ {
		if err := l.blob.Read(l.ctx, packed, c.Offset); err != nil {
			return nil, err
		}
		data, err := l.tree.Unpack(c, packed)
		if err == nil || try > 0 {
			return data, err
		}
		l.log.Warn("a part of the layer is not what its digest says: it is fetched again", "offset", c.Offset, "error", err)
		if err := l.blob.Forget(c.Offset, c.End); err != nil {
			return nil, err
		}
	}
}

// How long the fetch of the whole rests after an error, at first and at most.
const (
	restMin = time.Second
	restMax = time.Minute
)

// fill fetches the whole layer. It goes on after errors: the registry may come back, or a login come.
func (l *layer) fill() {
	for rest := restMin; ; rest = min(2*rest, restMax) {
		err := l.blob.Fill(l.ctx, l.request.Blob.Digest)
		if err == nil {
			close(l.whole)
			return
		}
		if l.ctx.Err() != nil {
			return
		}
		l.log.Warn("fetch the layer", "error", err, "again-in", rest)
		select {
		case <-l.ctx.Done():
			return
		case <-l.kick:
			rest = restMin
		case <-time.After(rest):
		}
	}
}

func (l *layer) opened() lazy.Opened {
	return lazy.Opened{Size: l.tree.Size, Implied: l.tree.Implied}
}

func (l *layer) status(closed bool) lazy.Status {
	return lazy.Status{Chain: l.request.Chain, Closed: closed, Have: l.blob.Have(), Size: l.request.Blob.Size}
}
