package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

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
		Key: key, Image: img.ID.String(), Parents: parents, Description: op.describe(), Type: "config",
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
			ID: r.Key, Parents: r.Parents, Type: r.typeName(), Description: printable(r.Description, maxTitle),
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
		list = append(list, wire.BuildCacheRecord{
			ID: m, Type: "exec.cachemount", Description: "cache mount " + s.cacheMountName(m), InUse: s.busy(m), Size: size,
		})
	}
	return list, nil
}

// typeName is the type in BuildKit's words.
func (r record) typeName() string {
	if r.Type == "exec" {
		return "regular"
	}
	return "source.local"
}

// Prune removes cached steps that no running build stands on: those that led to no result that
// exists, or with all every one, and the cache mounts too. Filters are until (a duration or a time: not
// used since), id and type.
func (s *Solver) Prune(ctx context.Context, all bool, filters map[string][]string) (wire.BuildPrune, error) {
	answer := wire.BuildPrune{CachesDeleted: []string{}}
	match, err := pruneFilter(filters, time.Now())
	if err != nil {
		return answer, err
	}
	rows, err := s.records.List()
	if err != nil {
		return answer, err
	}
	wanted := map[string]bool{} // keys below a result
	if !all {
		wanted = s.belowResults(ctx, rows)
	}
	// Children before their parents: an image on which another stands cannot be removed.
	slices.SortStableFunc(rows, func(a, b record) int { return b.Created.Compare(a.Created) })
	for _, r := range rows {
		if err := ctx.Err(); err != nil {
			return answer, err
		}
		if wanted[r.Key] || s.busy(r.Key) || !match(r) {
			continue
		}
		freed, err := s.drop(ctx, r)
		if err != nil {
			return answer, err
		}
		answer.CachesDeleted = append(answer.CachesDeleted, r.Key)
		answer.SpaceReclaimed += freed
	}
	if all && len(filters) == 0 {
		err = s.dropCacheMounts(ctx, &answer)
	}
	return answer, err
}

// belowResults returns the keys of results whose images exist, and of all that they came from.
func (s *Solver) belowResults(ctx context.Context, rows []record) map[string]bool {
	byKey := map[string]record{}
	var todo []string
	for _, r := range rows {
		byKey[r.Key] = r
		if r.Result {
			if _, err := s.o.Images.Get(ctx, r.Image); err == nil {
				todo = append(todo, r.Key)
			}
		}
	}
	below := map[string]bool{}
	for len(todo) > 0 {
		key := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !below[key] {
			below[key] = true
			todo = append(todo, byKey[key].Parents...)
		}
	}
	return below
}

// drop forgets a row, and removes its image when nothing else wants it.
func (s *Solver) drop(ctx context.Context, r record) (freed uint64, err error) {
	if err := s.records.Delete(r.Key); err != nil {
		return 0, err
	}
	if r.Result {
		return 0, nil
	}
	img, err := s.o.Images.Get(ctx, r.Image)
	if err != nil || len(img.Names) > 0 {
		return 0, nil //nolint:nilerr // it is gone already, or it is somebody's
	}
	_, err = s.o.Images.Remove(ctx, r.Image, false, true)
	switch {
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Conflict):
		return 0, nil // a container or another image stands on it
	case err != nil:
		return 0, fmt.Errorf("prune build cache: %w", err)
	}
	return uint64(max(0, r.Size)), nil
}

func pruneFilter(filters map[string][]string, now time.Time) (func(record) bool, error) {
	var before time.Time
	var ids, types []string
	for name, values := range filters {
		switch name {
		case "until", "unused-for":
			for _, value := range values {
				t, err := moment(value, now)
				if err != nil {
					return nil, &fault.Field{Field: "filter " + name, Given: value, Expected: "a duration such as 24h, or a time such as 2026-01-31T10:00:00Z"}
				}
				before = t
			}
		case "id":
			ids = values
		case "type":
			types = values
		default:
			known := []string{"until", "unused-for", "id", "type"}
			return nil, &fault.Field{Field: "filter", Given: name, Expected: "one of " + strings.Join(known, ", "), Nearest: fault.Nearest(name, known)}
		}
	}
	return func(r record) bool {
		return (before.IsZero() || r.Used.Before(before)) &&
			(len(ids) == 0 || slices.ContainsFunc(ids, func(id string) bool { return id != "" && strings.HasPrefix(r.Key, id) })) &&
			(len(types) == 0 || slices.Contains(types, r.typeName()))
	}, nil
}

// moment reads a duration before now, a time or a number of seconds since 1970.
func moment(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if d, err := time.ParseDuration(s + "s"); err == nil && s != "" {
		return time.Unix(0, d.Nanoseconds()), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("no time")
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
		if e.IsDir() {
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

func (s *Solver) dropCacheMounts(ctx context.Context, answer *wire.BuildPrune) error {
	ids, err := s.cacheMounts()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if s.busy(id) {
			continue
		}
		dir := filepath.Join(s.o.Root, cacheName, id)
		size, err := treeSize(ctx, dir)
		if err != nil {
			return err
		}
		if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(dir+nameSuffix)); err != nil {
			return fmt.Errorf("prune build cache: %w", err)
		}
		answer.CachesDeleted = append(answer.CachesDeleted, id)
		answer.SpaceReclaimed += uint64(size)
	}
	return nil
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
