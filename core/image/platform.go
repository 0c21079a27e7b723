package image

import (
	"context"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/wire"
)

// A name stands for one image, that of the platform that came last, and beside it for images of other
// platforms, where all came from one index: those have the name among their others (record.Others). They
// are found where a platform is asked for, are saved and pushed as one index, and go with the name.

// platform is what the image is for.
func (e *entry) platform() ocispec.Platform {
	c := e.Image.Config.Platform
	return ocispec.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant, OSVersion: c.OSVersion, OSFeatures: c.OSFeatures}
}

// is reports whether the image is of the platform; a variant that was not asked for may be any.
func (e *entry) is(want ocispec.Platform) bool {
	have := e.platform()
	return want.OS == have.OS && want.Architecture == have.Architecture && (want.Variant == "" || registry.Runs(want, have) == 100)
}

// others returns the images of other platforms that a tag stands for.
func (s *Store) others(tag string) []*entry {
	return slices.DeleteFunc(s.all(), func(e *entry) bool { return !slices.Contains(e.Others, tag) })
}

// tagOf returns the canonical tag that a reference is, "" for a digest, an ID or what is none.
func tagOf(e *entry, ref string) string {
	named, err := parseName(ref)
	if err != nil || e.isID(ref) {
		return ""
	}
	if _, digested := named.(reference.Digested); digested {
		return ""
	}
	return reference.TagNameOnly(named).String()
}

// findFor finds the image of a platform; nil is the one that the name stands for.
func (s *Store) findFor(ref string, want *ocispec.Platform) (*entry, error) {
	e, err := s.find(ref)
	if err != nil || want == nil || e.is(*want) {
		return e, err
	}
	for _, other := range s.variants(e, ref) {
		if other.is(*want) {
			return other, nil
		}
	}
	return nil, fault.New(fault.NotFound, "image with reference %s was found but does not provide the specified platform (%s), it is of %s",
		ref, registry.PlatformString(*want), registry.PlatformString(e.platform()))
}

// variants returns the images of other platforms under the name by which an image was found.
func (s *Store) variants(e *entry, ref string) []*entry {
	if tag := tagOf(e, ref); tag != "" {
		return s.others(tag)
	}
	named, err := parseName(ref)
	if err != nil {
		return nil
	}
	canonical := named.String() // the digest of an index, that several have
	return slices.DeleteFunc(s.all(), func(o *entry) bool {
		return o.record.ID == e.record.ID || !slices.Contains(o.record.Digests, canonical)
	})
}

// sameIndex reports whether two images came from one index of a tag's repository: only an index is a digest
// that two images have.
func sameIndex(a, b record, tag string) bool {
	return slices.ContainsFunc(a.Digests, func(d string) bool { return repository(d) == repository(tag) && slices.Contains(b.Digests, d) })
}

// share makes rows for the tags that an image gets: of its own, what it has been an other of, and of the
// others, which keep the name only beside an image of their index. It returns the row, and those others
// that lose a name.
func (s *Store) share(r record, tags []string) (record, []*entry) {
	if old := s.byID(r.ID); old != nil {
		r.Others = old.Others
	}
	r.Others = slices.DeleteFunc(slices.Clone(r.Others), func(t string) bool { return slices.Contains(tags, t) })
	var changed []*entry
	for _, e := range s.all() {
		if e.record.ID == r.ID {
			continue
		}
		rest := e.record
		rest.Others = slices.DeleteFunc(slices.Clone(rest.Others), func(t string) bool { return slices.Contains(tags, t) && !sameIndex(rest, r, t) })
		if len(rest.Others) != len(e.Others) {
			changed = append(changed, e.with(rest))
		}
	}
	return r, changed
}

// lose is the row of an image whose tags another one gets: of the same index it stays beside it.
func lose(rest, to record, tags []string) record {
	for _, t := range rest.Tags {
		if slices.Contains(tags, t) && sameIndex(rest, to, t) {
			rest.Others = include(rest.Others, t)
		}
	}
	rest.Tags = slices.DeleteFunc(slices.Clone(rest.Tags), func(t string) bool { return slices.Contains(tags, t) })
	return rest
}

// addOthers gives images of other platforms a tag to stand beside. The caller holds change.
func (s *Store) addOthers(ids []digest.Digest, tag string) error {
	var list []*entry
	for _, id := range ids {
		e := s.byID(id)
		if e == nil || slices.Contains(e.Tags, tag) || slices.Contains(e.Others, tag) {
			continue
		}
		r := e.record
		r.Others = include(r.Others, tag)
		list = append(list, e.with(r))
	}
	if len(list) == 0 {
		return nil
	}
	return s.write(list)
}

// dropOther takes a tag, and the digests of its repository with the last one, from an image that has it
// among its others, and removes the image if nothing else names it. It belongs to a Remove.
func (rm *remover) dropOther(e *entry, tag string) error {
	r := e.record
	r.Others = without(r.Others, tag)
	if !slices.ContainsFunc(slices.Concat(r.Tags, r.Others), func(t string) bool { return repository(t) == repository(tag) }) {
		r.Digests = slices.DeleteFunc(slices.Clone(r.Digests), func(d string) bool { return repository(d) == repository(tag) })
	}
	e = e.with(r)
	if !e.dangling() {
		return rm.keep(e)
	}
	return rm.remove(e, true)
}

// RemovePlatforms is Remove for some of the platforms that a name stands for. The last one takes the name
// with it.
func (s *Store) RemovePlatforms(ctx context.Context, ref string, platforms []ocispec.Platform, force, noPrune bool) ([]wire.ImageDelete, error) {
	if len(platforms) == 0 {
		return s.Remove(ctx, ref, force, noPrune)
	}
	list := []wire.ImageDelete{}
	for _, p := range platforms { // all are there, or nothing is removed
		if _, err := s.findFor(ref, &p); err != nil {
			return list, err
		}
	}
	for _, p := range platforms {
		gone, err := s.removePlatform(ctx, ref, p, force, noPrune)
		if list = append(list, gone...); err != nil {
			return list, err
		}
	}
	return list, nil
}

func (s *Store) removePlatform(ctx context.Context, ref string, p ocispec.Platform, force, noPrune bool) ([]wire.ImageDelete, error) {
	s.change.Lock()
	e, err := s.findFor(ref, &p)
	if err != nil {
		s.change.Unlock()
		return nil, err
	}
	tag, others := tagOf(e, ref), s.variants(e, ref)
	if tag == "" || len(others) == 0 && s.tagged(tag) == e {
		s.change.Unlock()
		return s.Remove(ctx, ref, force, noPrune)
	}
	defer s.change.Unlock()
	if users := s.o.InUse(e.record.ID.String()); len(users) > 0 && !force {
		return nil, fault.New(fault.Conflict, "conflict: unable to remove platform %s of %q (must force) - container %.12s is using its image %s",
			registry.PlatformString(p), ref, users[0].ContainerID, short(e.record.ID))
	}
	if s.tagged(tag).record.ID == e.record.ID { // another one takes the name over
		next := others[0]
		if _, err := s.rename(next.record, []string{tag}, nil); err != nil {
			return nil, err
		}
		e = s.byID(e.record.ID)
	}
	rm := remover{s: s, force: force, prune: !noPrune, out: []wire.ImageDelete{{Untagged: familiarString(tag) + " (" + registry.PlatformString(p) + ")"}}, told: 1}
	err = rm.dropOther(e, tag)
	return rm.out, err
}

// manifests describes the platforms that an image's names stand for, its own first.
func (s *Store) manifests(e *entry) []wire.ImageManifest {
	list := []wire.ImageManifest{s.manifest(e)}
	seen := map[digest.Digest]bool{e.record.ID: true}
	for _, tag := range e.Tags {
		for _, o := range s.others(tag) {
			if !seen[o.record.ID] {
				seen[o.record.ID] = true
				list = append(list, s.manifest(o))
			}
		}
	}
	return list
}

func (s *Store) manifest(e *entry) wire.ImageManifest {
	d, p := wireDescriptor(e.Manifest), e.platform()
	platform := &wire.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
	d.Platform = platform
	m := wire.ImageManifest{ID: e.Manifest.Digest.String(), Descriptor: d, Available: true, Kind: "image"}
	m.Size.Content = e.Manifest.Size + e.configSize
	for _, l := range e.Layers {
		m.Size.Content += l.Blob.Size
	}
	m.Size.Total = m.Size.Content + e.Size
	m.ImageData = &wire.ImageProperties{Platform: *platform, Containers: []string{}}
	m.ImageData.Size.Unpacked = e.Size
	for _, u := range s.o.InUse(e.record.ID.String()) {
		m.ImageData.Containers = append(m.ImageData.Containers, u.ContainerID)
	}
	if e.Artifact != "" {
		m.Kind, m.ImageData = "unknown", nil
	}
	return m
}

func wireDescriptor(d ocispec.Descriptor) wire.Descriptor {
	return wire.Descriptor{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size}
}
