package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// record is one row of the cache.
type record struct {
	Key         string    `json:"key"`
	Image       string    `json:"image"` // ID
	Parents     []string  `json:"parents,omitempty"`
	Type        string    `json:"type"` // "exec", "copy", "config"
	Description string    `json:"description"`
	Size        int64     `json:"size"`
	Created     time.Time `json:"created"`
	Used        time.Time `json:"used"`
	Uses        int       `json:"uses"`
	// Result says that the image was what a build was asked for: it belongs to the user, and prune
	// forgets the row without removing it.
	Result bool `json:"result,omitempty"`
}

// cached returns the image that a key led to before, if it is still there.
func (v *solve) cached(ctx context.Context, key string) *image.Image {
	r, err := v.records.Get(key)
	if err != nil {
		if !fault.Is(err, fault.NotFound) {
			v.log.Warn("build cache", "error", err)
		}
		return nil
	}
	img, err := v.o.Images.Get(ctx, r.Image)
	if err != nil {
		return nil // removed since, as by image prune: the step is run again and writes a new row
	}
	// The image may be there and its layers not, when somebody has been at the disk.
	if _, err := v.o.Layers.Get(img.ChainID); img.ChainID != "" && err != nil {
		return nil
	}
	v.mu.Lock()
	v.hits[key] = true
	v.mu.Unlock()
	return img
}

// save writes the row of a step that has run.
func (v *solve) save(key string, op operation, parents []string, img *image.Image, began time.Time) error {
	r := record{
		Key: key, Image: img.ID.String(), Parents: parents, Description: printable(op.describe(), maxTitle), Type: "config",
		Created: began, Used: time.Now(), Uses: 1,
	}
	switch op.(type) {
	case *runStep:
		r.Type = "exec"
	case *copyStep:
		r.Type = "copy"
	}
	if img.ChainID != op.base().chain() {
		if l, err := v.o.Layers.Get(img.ChainID); err == nil {
			r.Size = l.Size
		}
	}
	return v.records.Put(key, r)
}

// touch notes that the build used rows, all in one transaction.
func (v *solve) touch() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.hits) == 0 {
		return
	}
	now := time.Now()
	err := v.o.DB.Update(func(tx *state.Tx) error {
		rows := v.records.In(tx)
		for key := range v.hits {
			r, err := rows.Get(key)
			if fault.Is(err, fault.NotFound) {
				continue
			}
			if err != nil {
				return err
			}
			r.Used, r.Uses = now, r.Uses+1
			if err := rows.Put(key, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		v.log.Warn("build cache: note its use", "error", err)
	}
}

// keep marks the row of a build's result.
func (v *solve) keep(target result) {
	if target.key == "" {
		return
	}
	if r, err := v.records.Get(target.key); err != nil || r.Result {
		return
	}
	err := v.records.Change(target.key, func(r *record) error { r.Result = true; return nil })
	if err != nil && !fault.Is(err, fault.NotFound) {
		v.log.Warn("build cache: mark the result", "error", err)
	}
}

// use protects a key from Prune until the build ends.
func (v *solve) use(key string) {
	v.Solver.mu.Lock()
	defer v.Solver.mu.Unlock()
	if !v.used[key] {
		v.used[key] = true
		v.inUse[key]++
	}
}

func (v *solve) close() {
	v.Solver.mu.Lock()
	defer v.Solver.mu.Unlock()
	for key := range v.used {
		if v.inUse[key]--; v.inUse[key] == 0 {
			delete(v.inUse, key)
		}
	}
}

// busy reports whether a running build stands on the key.
func (s *Solver) busy(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inUse[key] > 0
}

// Usage lists the cached steps and the cache mounts.
func (s *Solver) Usage(ctx context.Context) ([]wire.BuildCacheRecord, error) {
	rows, err := s.records.List()
	if err != nil {
		return nil, err
	}
	images := map[string]int{}
	for _, r := range rows {
		images[r.Image]++
	}
	list := []wire.BuildCacheRecord{}
	for _, r := range rows {
		used := r.Used.Format(time.RFC3339Nano)
		list = append(list, wire.BuildCacheRecord{
			ID: r.Key, Parents: r.Parents, Type: r.typeName(), Description: r.Description,
			InUse: s.busy(r.Key), Shared: images[r.Image] > 1 || r.Result, Size: r.Size,
			CreatedAt: r.Created.Format(time.RFC3339Nano), LastUsedAt: &used, UsageCount: r.Uses,
		})
	}
	mounts, err := s.cacheMounts()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		size, err := treeSize(ctx, filepath.Join(s.o.Root, cacheName, m))
		if err != nil {
			return nil, err
		}
		created, used, err := s.cacheMountTimes(m)
		if errors.Is(err, os.ErrNotExist) {
			continue // pruned meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("cache mount %s: %w", m, err)
		}
		last := used.Format(time.RFC3339Nano)
		list = append(list, wire.BuildCacheRecord{
			ID: m, Type: "exec.cachemount", Description: "cache mount " + s.cacheMountName(m), InUse: s.busy(m), Size: size,
			CreatedAt: created.Format(time.RFC3339Nano), LastUsedAt: &last,
		})
	}
	return list, nil
}

// cacheMountTimes says when a cache mount was made and when a step last had it, which is when its name
// was written. Clients parse both, so a filesystem without times of birth says the last use twice.
func (s *Solver) cacheMountTimes(id string) (created, used time.Time, err error) {
	dir := filepath.Join(s.o.Root, cacheName, id)
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MTIME|unix.STATX_BTIME, &st); err != nil {
		return created, used, err
	}
	used = time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)).UTC()
	if info, err := os.Stat(dir + nameSuffix); err == nil {
		used = info.ModTime().UTC()
	}
	if st.Mask&unix.STATX_BTIME == 0 {
		return used, used, nil
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)).UTC(), used, nil
}

// typeName is the type in BuildKit's words.
func (r record) typeName() string {
	if r.Type == "exec" {
		return "regular"
	}
	return "source.local"
}

// A cache mount is a directory below caches/, named by the digest of its name, with the name in a
// file beside it.
const nameSuffix = ".name"

func (s *Solver) cacheMounts() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.o.Root, cacheName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && len(e.Name()) == cacheIDLen {
			ids = append(ids, e.Name())
		}
	}
	slices.SortFunc(ids, cmp.Compare)
	return ids, err
}

func (s *Solver) cacheMountName(id string) string {
	name, err := os.ReadFile(filepath.Join(s.o.Root, cacheName, id+nameSuffix))
	if err != nil {
		return id
	}
	return printable(string(name), 300)
}

// treeSize is the bytes of the regular files in a directory.
func treeSize(ctx context.Context, dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // a build is at work in it
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if info, err := e.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	return size, err
}
