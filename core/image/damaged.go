package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/check"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// damaged is an image of which a blob or a layer is missing. Nobody can use it, but its row stays, and so
// do the files that it has: a pull or a load of the same image brings only what is missing and gives it
// back its names, and nothing is forgotten before somebody says so (`rmi`).
type damaged struct {
	record
	why  string
	torn bool // what it has of files may be half written, and is not kept
}

// getAgain is what can be done about an image that lost a file and is of no registry.
const getAgain = "load or pull it again, or remove it: rmi "

// damage is the finding for a row that no image in memory stands for. An image of a registry is mended by
// a pull of just that digest.
func (s *Store) damage(r record) check.Finding {
	f := check.Finding{Kind: "image", Subject: r.ID.String(), Problem: "the database has a row of it that could not be read", Advice: getAgain + short(r.ID)}
	s.mu.RLock()
	d, ok := s.damaged[r.ID]
	s.mu.RUnlock()
	if !ok {
		return f
	}
	if f.Problem = d.why; len(r.Tags) > 0 {
		f.Problem += " (" + strings.Join(familiar(r.Tags), ", ") + ")"
	}
	if len(r.Digests) > 0 && s.o.Registry != nil {
		f.Did, f.Mend = "pulled it again", func(ctx context.Context) error { return s.refetch(ctx, d) }
	}
	return f
}

// refetch pulls a damaged image by the digests that registries know it by, until it is whole.
func (s *Store) refetch(ctx context.Context, d damaged) error {
	var errs []error
	for _, ref := range d.Digests {
		errs = append(errs, s.Pull(ctx, ref, "", nil, func(wire.Message) {}))
		if s.byID(d.ID) != nil {
			return nil
		}
	}
	err := errors.Join(errs...)
	if err == nil { // an index whose image for this host is another one
		err = fault.New(fault.NotFound, "%s is not what the registry has for this host's platform", short(d.ID))
	}
	return fmt.Errorf("%w: %s%s", err, getAgain, short(d.ID))
}

// inherit gives a row the names that it had before the image was damaged. The caller holds change.
func (s *Store) inherit(r record) record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	d, ok := s.damaged[r.ID]
	if !ok {
		return r
	}
	for _, t := range d.Tags {
		r.Tags = include(r.Tags, t)
	}
	for _, t := range d.Digests {
		r.Digests = include(r.Digests, t)
	}
	return r
}

// disown returns the damaged images from which the entries take names, without them, and the blobs of those
// that the entries make whole again: a manifest may be another one.
func (s *Store) disown(list []*entry) (poorer []damaged, stale []digest.Digest) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, d := range s.damaged {
		if slices.ContainsFunc(list, func(e *entry) bool { return e.record.ID == id }) {
			stale = append(stale, d.blobs()...)
			continue
		}
		kept := slices.DeleteFunc(slices.Clone(d.Tags), func(t string) bool {
			return slices.ContainsFunc(list, func(e *entry) bool { return slices.Contains(e.Tags, t) })
		})
		if len(kept) < len(d.Tags) {
			d.Tags = kept
			poorer = append(poorer, d)
		}
	}
	return poorer, stale
}

// redamage notes damaged images whose rows have changed.
func (s *Store) redamage(list []damaged) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range list {
		s.damaged[d.ID] = d
	}
}

// findDamaged finds a damaged image by a name or the beginning of its ID.
func (s *Store) findDamaged(ref string) (damaged, bool) {
	var name string
	if named, err := parseName(ref); err == nil {
		name = reference.TagNameOnly(named).String()
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []damaged
	for _, id := range slices.Sorted(maps.Keys(s.damaged)) {
		d := s.damaged[id]
		if name != "" && (slices.Contains(d.Tags, name) || slices.Contains(d.Digests, name)) {
			return d, true
		}
		if prefix := strings.TrimPrefix(ref, digest.Canonical.String()+":"); prefix != "" && strings.HasPrefix(id.Encoded(), prefix) {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return damaged{}, false
	}
	return found[0], true
}

// removeDamaged takes a name from a damaged image; with the last one, or by its ID, the row and what is left
// of the files go. The caller holds change.
func (s *Store) removeDamaged(d damaged, ref string, force bool) ([]wire.ImageDelete, error) {
	if users := s.o.InUse(d.ID.String()); len(users) > 0 && (!force || users[0].Running) {
		return nil, fault.New(fault.Conflict, "conflict: unable to delete %s (must be forced) - image is being used by container %.12s", short(d.ID), users[0].ContainerID)
	}
	out := []wire.ImageDelete{}
	if named, err := parseName(ref); err == nil && len(d.Tags) > 1 {
		if name := reference.TagNameOnly(named).String(); slices.Contains(d.Tags, name) {
			d.Tags = without(d.Tags, name)
			if err := s.rows.Put(d.ID.String(), d.record); err != nil {
				return nil, fmt.Errorf("remove image %s: %w", d.ID, err)
			}
			s.redamage([]damaged{d})
			return append(out, wire.ImageDelete{Untagged: familiarString(name)}), nil
		}
	}
	err := s.o.DB.Update(func(tx *state.Tx) error { return s.rows.In(tx).Delete(d.ID.String()) })
	if err != nil {
		return nil, fmt.Errorf("remove image %s: %w", d.ID, err)
	}
	s.mu.Lock()
	delete(s.damaged, d.ID)
	s.mu.Unlock()
	var chains []digest.Digest
	for _, l := range slices.Backward(d.Layers) {
		chains = append(chains, l.Chain)
	}
	for _, name := range slices.Concat(d.Tags, d.Digests) {
		out = append(out, wire.ImageDelete{Untagged: familiarString(name)})
	}
	out = append(out, wire.ImageDelete{Deleted: d.ID.String()})
	for _, chain := range s.sweep(d.blobs(), chains) {
		out = append(out, wire.ImageDelete{Deleted: chain.String()})
	}
	s.o.Events("delete", d.ID.String(), map[string]string{"name": d.ID.String()})
	return out, nil
}
