package image

import (
	"context"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
)

// Get returns an image by name, name:tag, name@digest, ID or the beginning of an ID; a name wins over
// an ID that begins like it. An unknown one is fault.NotFound. The answer's configurations are shared
// and must not be changed.
func (s *Store) Get(_ context.Context, ref string) (*Image, error) {
	e, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	if err := e.runnable(ref); err != nil {
		return nil, err
	}
	return e.Image.clone(), nil
}

func (s *Store) find(ref string) (*entry, error) {
	parsed, err := reference.ParseAnyReference(ref)
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	named, ok := parsed.(reference.Named)
	if !ok { // 64 digits, with or without the algorithm
		if d, ok := parsed.(reference.Digested); ok {
			if e := s.byID(d.Digest()); e != nil {
				return e, nil
			}
		}
		return nil, noSuchImage(ref)
	}
	if e := s.byName(named); e != nil {
		return e, nil
	}
	if e, err := s.byPrefix(ref); e != nil || err != nil {
		return e, err
	}
	return nil, noSuchImage(reference.FamiliarString(reference.TagNameOnly(named)))
}

func noSuchImage(ref string) error { return fault.New(fault.NotFound, "No such image: %s", ref) }

// byName finds an image by its digest in a repository where there is one in the reference, else by tag.
func (s *Store) byName(named reference.Named) *entry {
	if d, ok := named.(reference.Digested); ok {
		canonical := named.Name() + "@" + d.Digest().String()
		for _, e := range s.all() {
			if slices.Contains(e.record.Digests, canonical) {
				return e
			}
		}
		return nil
	}
	return s.tagged(reference.TagNameOnly(named).String())
}

// byPrefix finds the one image whose ID begins with the given digits, nil for none; several are an error.
func (s *Store) byPrefix(prefix string) (*entry, error) {
	prefix = strings.TrimPrefix(prefix, digest.Canonical.String()+":")
	if prefix == "" || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, nil
	}
	var found *entry
	for _, e := range s.all() {
		if strings.HasPrefix(e.record.ID.Encoded(), prefix) {
			if found != nil {
				return nil, fault.New(fault.NotFound, "ambiguous reference: %s: the IDs %s and %s begin so", prefix, short(found.record.ID), short(e.record.ID))
			}
			found = e
		}
	}
	return found, nil
}

// isID reports whether the reference by which the image was found is the beginning of its ID.
func (e *entry) isID(ref string) bool {
	return strings.HasPrefix(e.record.ID.String(), ref) || strings.HasPrefix(e.record.ID.Encoded(), ref)
}

// children returns the images that were committed on an image.
func (s *Store) children(id digest.Digest) []*entry {
	return slices.DeleteFunc(s.all(), func(e *entry) bool { return e.record.Parent != id })
}

// dangling reports whether the image has no name.
func (e *entry) dangling() bool {
	return len(e.Tags) == 0 && len(e.record.Digests) == 0 && len(e.Others) == 0
}
