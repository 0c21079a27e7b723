package image

import (
	"context"
	"strconv"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Prune removes images that no container uses: nameless ones, or all with the filter dangling=false.
// The filters until, label and label! choose among them.
func (s *Store) Prune(ctx context.Context, filters map[string][]string) (wire.ImagesPrune, error) {
	var answer wire.ImagesPrune
	nameless := true
	for _, v := range filters["dangling"] {
		is, err := parseBool("dangling", v)
		if err != nil {
			return answer, err
		}
		nameless = is
	}
	choose, err := s.filter(only(filters, "until", "label", "label!"))
	if err != nil {
		return answer, err
	}
	before := s.diskUsage()
	s.change.Lock()
	defer s.change.Unlock()
	rm := remover{s: s, prune: true, out: answer.ImagesDeleted}
	for _, e := range s.all() {
		if err := ctx.Err(); err != nil {
			return answer, err
		}
		e = s.byID(e.record.ID)
		if e == nil || nameless && !e.dangling() || !choose(e) || len(s.o.InUse(e.record.ID.String())) > 0 || len(s.children(e.record.ID)) > 0 {
			continue
		}
		told := len(rm.out)
		if e, err = rm.untagAll(e); err == nil {
			err = rm.remove(e, false)
		}
		if fault.Is(err, fault.Conflict) { // a container came in between
			rm.out = rm.out[:told]
			continue
		}
		if err != nil {
			return answer, err
		}
	}
	answer.ImagesDeleted = rm.out
	if s.o.Lazy != nil && !nameless {
		if err := s.o.Lazy.ForgetIndexes(s.o.Content.Has); err != nil {
			return answer, err
		}
	}
	answer.SpaceReclaimed = uint64(max(0, before-s.diskUsage()))
	s.o.Events("prune", "", map[string]string{"reclaimed": strconv.FormatUint(answer.SpaceReclaimed, 10)})
	return answer, nil
}

// diskUsage is what the layers take, which is what Docker counts as reclaimed.
func (s *Store) diskUsage() int64 {
	var sum int64
	for _, l := range s.o.Layers.Layers() {
		sum += l.Size
	}
	return sum
}

func only(filters map[string][]string, keys ...string) map[string][]string {
	some := map[string][]string{}
	for _, k := range keys {
		if v, ok := filters[k]; ok {
			some[k] = v
		}
	}
	return some
}
