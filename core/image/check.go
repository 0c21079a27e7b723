package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/check"
	"github.com/sampan-project/sampan/core/fault"
)

const loadAgain = "pull or load the image again"

// Check compares images with their rows, blobs and layers. With verify every blob is read and its
// digest computed.
func (s *Store) Check(ctx context.Context, verify bool) (found []check.Finding, err error) {
	rows, err := s.checkRows()
	if err != nil {
		return nil, err
	}
	found = append(found, rows...)
	for _, e := range s.all() {
		for _, l := range e.Layers {
			if _, err := s.o.Layers.Get(l.Chain); fault.Is(err, fault.NotFound) {
				found = append(found, s.problem(e, fmt.Sprintf("its layer %s is missing", l.Chain), loadAgain))
			}
		}
		for _, d := range s.absent(&e.record) {
			if s.byID(e.record.ID) != nil {
				found = append(found, s.problem(e, fmt.Sprintf("its blob %s is missing", d), loadAgain))
			}
		}
	}
	shown, err := s.checkShown(ctx)
	if err != nil {
		return nil, err
	}
	found = append(found, shown...)
	rubbish, err := s.checkOwners()
	found = append(found, rubbish...)
	if verify && err == nil {
		var wrong []check.Finding
		wrong, err = s.verify(ctx)
		found = append(found, wrong...)
	}
	content, contentErr := s.o.Content.Check(ctx)
	return append(found, content...), errors.Join(err, contentErr)
}

func (s *Store) problem(e *entry, problem, advice string) check.Finding {
	return check.Finding{Kind: "image", Subject: e.record.ID.String(), Problem: problem, Advice: advice}
}

// checkRows compares what is in memory with the database.
func (s *Store) checkRows() (found []check.Finding, err error) {
	s.change.Lock() // nobody is between the row and the memory of it
	defer s.change.Unlock()
	rows, err := s.rows.List()
	if err != nil {
		return nil, fmt.Errorf("check images: %w", err)
	}
	known := map[digest.Digest]bool{}
	for _, r := range rows {
		known[r.ID] = true
		if s.byID(r.ID) == nil {
			found = append(found, s.damage(r))
		}
	}
	for _, e := range s.all() {
		if known[e.record.ID] {
			continue
		}
		found = append(found, check.Finding{Kind: "image", Subject: e.record.ID.String(), Problem: "the database does not have it", Did: "wrote its row",
			Mend: func(context.Context) error {
				s.change.Lock()
				defer s.change.Unlock()
				if now := s.byID(e.record.ID); now != nil {
					return s.write([]*entry{now})
				}
				return nil
			}})
	}
	return found, nil
}

// checkOwners looks for blobs and layers for which neither an image nor a lease speaks.
func (s *Store) checkOwners() (found []check.Finding, err error) {
	var blobs []digest.Digest
	if err := s.o.Content.Walk(func(d digest.Digest, _ int64) error { blobs = append(blobs, d); return nil }); err != nil {
		return nil, err
	}
	s.mu.RLock()
	needed, standing := s.referencedLocked()
	for d := range s.blobs {
		needed[d] = true
	}
	for c := range s.chains {
		standing[c] = true
	}
	s.mu.RUnlock()
	for _, d := range blobs {
		if needed[d] {
			continue
		}
		found = append(found, check.Finding{Kind: "blob", Subject: d.String(), Problem: "no image has it", Did: "removed it",
			Mend: func(context.Context) error { s.sweep([]digest.Digest{d}, nil); return nil }})
	}
	for _, l := range s.o.Layers.Orphans(slices.Collect(maps.Keys(standing))) {
		found = append(found, check.Finding{Kind: "layer", Subject: l.ChainID.String(), Problem: "no image and no container has it", Did: "removed it",
			Mend: func(context.Context) error { s.sweep(nil, []digest.Digest{l.ChainID}); return nil }})
	}
	return found, nil
}

// verify reads the blobs of all images.
func (s *Store) verify(ctx context.Context) (found []check.Finding, err error) {
	blobs, _ := s.referenced()
	for _, d := range slices.Sorted(maps.Keys(blobs)) {
		right, err := s.o.Content.Verify(ctx, d)
		switch {
		case fault.Is(err, fault.NotFound): // told above, or removed meanwhile
		case err != nil:
			return found, err
		case !right:
			found = append(found, check.Finding{Kind: "blob", Subject: d.String(), Problem: "its content is not what its digest says", Advice: "remove its images, and pull or load them again"})
		}
	}
	return found, nil
}
