package image

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Tag gives an image another name, "x" is "x:latest". Another image that has the name loses it.
func (s *Store) Tag(_ context.Context, source, target string) error {
	tag, err := parseTag(target)
	if err != nil {
		return err
	}
	s.change.Lock()
	defer s.change.Unlock()
	e, err := s.find(source)
	if err != nil {
		return err
	}
	if now := s.tagged(tag); now == nil || now.record.ID != e.record.ID {
		if _, err := s.rename(e.record, []string{tag}, nil); err != nil {
			return err
		}
	}
	var others []digest.Digest
	for _, o := range s.variants(e, source) {
		others = append(others, o.record.ID)
	}
	if err := s.addOthers(others, tag); err != nil {
		return err
	}
	s.tell("tag", e, e.record.ID.String(), familiarString(tag))
	return nil
}

func without(list []string, word string) []string {
	var rest []string
	for _, w := range list {
		if w != word {
			rest = append(rest, w)
		}
	}
	return rest
}
