package server

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/lazy"
	"github.com/sampan-project/sampan/core/lazy/toc"
)

// maxIndexes bounds the size of all indexes; those that were not used for the longest time go first.
const maxIndexes = 256 << 20

// index makes an index, one at a time, so that it is noticed little by what else goes on.
func (s *Server) index(ctx context.Context, r lazy.IndexRequest) (any, error) {
	select {
	case s.indexing <- struct{}{}:
		defer func() { <-s.indexing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if _, err := os.Stat(r.To); err == nil {
		return nil, nil
	}
	f, err := os.Open(r.From)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	made := make(chan error, 1)
	go func() {
		// The thread has the low priority, and ends with the goroutine that is locked to it.
		runtime.LockOSThread()
		rest()
		made <- toc.BuildIndex(r.To, untilDone{ctx, f}, r.Blob, r.DiffID)
	}()
	if err := <-made; err != nil {
		return nil, err
	}
	s.log.Info("layer has an index", "blob", r.Blob.Digest)
	return nil, bound(filepath.Dir(r.To), maxIndexes)
}

// rest gives the calling thread the lowest priority (setpriority(2), ioprio_set(2)). Where that is not
// permitted it works as any.
func rest() {
	const (
		ioprioWhoProcess = 1
		ioprioIdle       = 3 << 13
	)
	unix.Setpriority(unix.PRIO_PROCESS, 0, 19)                                  //nolint:errcheck // see above
	unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, uintptr(ioprioIdle)) //nolint:errcheck // see above
}

// untilDone is a reader that ends with a context.
type untilDone struct {
	ctx context.Context //nolint:containedctx // io.Reader has none
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// bound removes the oldest indexes until the others have at most limit bytes.
func bound(dir string, limit int64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var all []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && !strings.HasPrefix(e.Name(), toc.TemporaryIndex) {
			all = append(all, info)
			limit -= info.Size()
		}
	}
	slices.SortFunc(all, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), strings.Compare(a.Name(), b.Name()))
	})
	for _, info := range all {
		if limit >= 0 {
			break
		}
		limit += info.Size()
		err = errors.Join(err, os.Remove(filepath.Join(dir, info.Name())))
	}
	return err
}
