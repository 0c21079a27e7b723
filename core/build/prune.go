package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Prune removes cached steps that no running build stands on: those that led to no result that
// exists, or with all every one, and the cache mounts too. Filters are until (a duration or a time: not
// used since), id and type.
func (s *Solver) Prune(ctx context.Context, all bool, filters map[string][]string) (wire.BuildPrune, error) {
	var answer wire.BuildPrune
	match, err := s.pruneFilter(filters, time.Now())
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
	if err == nil && s.o.Events != nil {
		s.o.Events("prune", "", map[string]string{"reclaimed": strconv.FormatUint(answer.SpaceReclaimed, 10)})
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

// pruneFilter returns the test that filters describe, with the names that BuildKit's have. Values of
// one filter are alternatives; a row must pass every filter.
func (s *Solver) pruneFilter(filters map[string][]string, now time.Time) (func(record) bool, error) {
	var tests []func(record) bool
	for name, values := range filters {
		if len(values) == 0 {
			continue
		}
		test, err := s.filterOf(name, values, now)
		if err != nil {
			return nil, err
		}
		tests = append(tests, test)
	}
	return func(r record) bool {
		return !slices.ContainsFunc(tests, func(test func(record) bool) bool { return !test(r) })
	}, nil
}

func (s *Solver) filterOf(name string, values []string, now time.Time) (func(record) bool, error) {
	anyOf := func(test func(r record, value string) bool) func(record) bool {
		return func(r record) bool {
			return slices.ContainsFunc(values, func(v string) bool { return v != "" && test(r, v) })
		}
	}
	switch name {
	case "until", "unused-for":
		before, err := moment(values[len(values)-1], now)
		if err != nil {
			return nil, &fault.Field{Field: "filter " + name, Given: values[len(values)-1], Expected: "a duration such as 24h, or a time such as 2026-01-31T10:00:00Z"}
		}
		return func(r record) bool { return r.Used.Before(before) }, nil
	case "id":
		return anyOf(func(r record, v string) bool { return strings.HasPrefix(r.Key, v) }), nil
	case "parent":
		return anyOf(func(r record, v string) bool {
			return slices.ContainsFunc(r.Parents, func(p string) bool { return strings.HasPrefix(p, v) })
		}), nil
	case "type":
		return anyOf(func(r record, v string) bool { return r.typeName() == v }), nil
	case "description":
		return anyOf(func(r record, v string) bool { return strings.Contains(r.Description, v) }), nil
	case "inuse", "shared", "private":
		return s.filterState(name, values)
	}
	known := []string{"until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private"}
	return nil, &fault.Field{Field: "filter", Given: name, Expected: "one of " + strings.Join(known, ", "), Nearest: fault.Nearest(name, known)}
}

func (s *Solver) filterState(name string, values []string) (func(record) bool, error) {
	want, err := strconv.ParseBool(values[len(values)-1])
	if err != nil {
		return nil, &fault.Field{Field: "filter " + name, Given: values[len(values)-1], Expected: "true or false"}
	}
	return func(r record) bool {
		is := r.Result
		switch name {
		case "inuse":
			is = s.busy(r.Key)
		case "private":
			is = !r.Result
		}
		return is == want
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

func (s *Solver) dropCacheMounts(ctx context.Context, answer *wire.BuildPrune) error {
	ids, err := s.cacheMounts()
	if err != nil {
		return err
	}
	for _, id := range ids {
		gone, err := s.takeCacheMount(id)
		if err != nil {
			return fmt.Errorf("prune build cache: %w", err)
		}
		if gone == "" {
			continue
		}
		size, err := treeSize(ctx, gone)
		if err := errors.Join(err, os.RemoveAll(gone)); err != nil {
			return fmt.Errorf("prune build cache: %w", err)
		}
		answer.CachesDeleted = append(answer.CachesDeleted, id)
		answer.SpaceReclaimed += uint64(size)
	}
	return nil
}

// takeCacheMount moves a cache mount that no build uses out of the way, and returns where it is; "" is
// one in use.
func (s *Solver) takeCacheMount(id string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse[id] > 0 {
		return "", nil
	}
	dir := filepath.Join(s.o.Root, cacheName, id)
	hole, err := os.MkdirTemp(filepath.Join(s.o.Root, cacheName), "gone-")
	if err != nil {
		return "", err
	}
	if err := os.Rename(dir, filepath.Join(hole, id)); err != nil {
		os.Remove(hole)
		return "", err
	}
	return hole, os.RemoveAll(dir + nameSuffix)
}
