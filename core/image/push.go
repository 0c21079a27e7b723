package image

import (
	"context"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/wire"
)

// pushName pushes what a tag stands for: one image, or, where that is several platforms, an index of them.
func (s *Store) pushName(ctx context.Context, tag string, auth *wire.AuthConfig, report *reporter) error {
	if len(s.others(tag)) == 0 {
		return s.push(ctx, tag, auth, report)
	}
	l := s.lease()
	defer l.end()
	primary := s.tagged(tag)
	if primary == nil {
		return fault.New(fault.NotFound, "An image does not exist locally with the tag: %s", familiarString(tag))
	}
	all := append(s.others(tag), primary)
	var requests []registry.PushRequest
	for i, e := range all {
		held, raw, err := s.leased(l, func() (*entry, error) { return s.find(e.record.ID.String()) })
		if err != nil {
			return err
		}
		all[i] = held
		requests = append(requests, registry.PushRequest{Raw: raw, MediaType: held.Manifest.MediaType, Blobs: s.o.Content, Sources: s.repositoriesOf})
	}
	index, err := makeIndex(all)
	if err != nil {
		return err
	}
	d, err := s.o.Registry.PushIndex(ctx, tag, index, ocispec.MediaTypeImageIndex, requests, auth, sayDiffs(report.say, nil, all...))
	if err != nil {
		return err
	}
	for _, e := range all {
		if err := s.addDigest(e, repository(tag)+"@"+d.Digest.String()); err != nil {
			return err
		}
	}
	return nil
}

// addDigest gives an image a digest that a registry knows it by, unless it was removed meanwhile.
func (s *Store) addDigest(e *entry, canonical string) error {
	s.change.Lock()
	defer s.change.Unlock()
	now := s.byID(e.record.ID)
	if now == nil {
		return nil
	}
	_, err := s.rename(now.record, nil, []string{canonical})
	return err
}

// PushFor pushes one platform of a name as an image of its own.
func (s *Store) PushFor(ctx context.Context, ref string, platform *ocispec.Platform, auth *wire.AuthConfig, progress func(wire.Message)) error {
	named, err := parseName(ref)
	if err != nil {
		return err
	}
	tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
	if !ok || platform == nil {
		return fault.New(fault.Invalid, "cannot push a digest reference")
	}
	report := newReporter(progress)
	l := s.lease()
	defer l.end()
	e, raw, err := s.leased(l, func() (*entry, error) { return s.findFor(tagged.String(), platform) })
	if fault.Is(err, fault.NotFound) && s.tagged(tagged.String()) == nil {
		return fault.New(fault.NotFound, "An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	if err != nil {
		return err
	}
	report.say(wire.Message{Status: "The push refers to repository [" + named.Name() + "]"})
	d, err := s.o.Registry.Push(ctx, tagged.String(), registry.PushRequest{Raw: raw, MediaType: e.Manifest.MediaType, Blobs: s.o.Content, Sources: s.repositoriesOf}, auth, sayDiffs(report.say, nil, e))
	if err != nil {
		return err
	}
	s.tell("push", e, reference.FamiliarString(tagged), reference.FamiliarName(named))
	return s.addDigest(e, named.Name()+"@"+d.Digest.String())
}
