package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// Remove takes a name from an image, and removes the image when it was the last; an ID removes the
// image with all its names when they are of one repository. The rules, and the words of the
// conflicts, are those of Docker's `rmi`. Without noPrune, nameless images below it go too.
func (s *Store) Remove(ctx context.Context, ref string, force, noPrune bool) ([]wire.ImageDelete, error) {
	s.change.Lock()
	defer s.change.Unlock()
	e, err := s.find(ref)
	if d, ok := s.findDamaged(ref); ok && fault.Is(err, fault.NotFound) {
		return s.removeDamaged(d, ref, force)
	}
	if err != nil {
		return nil, err
	}
	rm := remover{s: s, force: force, prune: !noPrune, out: []wire.ImageDelete{}}
	if e.isID(ref) {
		return rm.out, rm.all(e)
	}
	tag := tagOf(e, ref)
	others := s.others(tag)
	err = rm.byName(e, ref)
	for _, o := range others {
		if err == nil {
			err = rm.dropOther(o, tag)
		}
	}
	return rm.out, err
}

// remover is one Remove; its store's change is held.
type remover struct {
	s            *Store
	force, prune bool
	out          []wire.ImageDelete
	told         int // of out, to Events
}

func (rm *remover) byName(e *entry, ref string) error {
	named, err := parseName(ref)
	if err != nil {
		return err
	}
	users := rm.s.o.InUse(e.record.ID.String())
	if !rm.force && e.oneRepository() && len(users) > 0 {
		return fault.New(fault.Conflict, "conflict: unable to remove repository reference %q (must force) - container %.12s is using its referenced image %s",
			ref, users[0].ContainerID, short(e.record.ID))
	}
	named = reference.TagNameOnly(named)
	digested, isDigest := named.(reference.Digested)
	canonical := named.String()
	if isDigest {
		canonical = named.Name() + "@" + digested.Digest().String()
	}
	if e, err = rm.untag(e, canonical); err != nil {
		return err
	}
	if !isDigest && !slices.ContainsFunc(e.Tags, func(t string) bool { return repository(t) == named.Name() }) {
		// Digests of a repository without tags name nothing that a person knows.
		for _, d := range slices.Clone(e.record.Digests) {
			if repository(d) != named.Name() {
				continue
			}
			if e, err = rm.untag(e, d); err != nil {
				return err
			}
		}
	}
	if !e.dangling() {
		return rm.keep(e)
	}
	return rm.remove(e, true)
}

// all removes an image by its ID, and what its tags stand for beside it.
func (rm *remover) all(e *entry) error {
	var others []*entry
	for _, t := range e.Tags {
		others = append(others, rm.s.others(t)...)
	}
	tags := e.Tags
	if err := rm.byID(e); err != nil {
		return err
	}
	for _, o := range others {
		for _, t := range tags {
			if now := rm.s.byID(o.record.ID); now != nil && slices.Contains(now.Others, t) {
				if err := rm.dropOther(now, t); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (rm *remover) byID(e *entry) (err error) {
	if e.oneRepository() {
		if err := rm.conflict(e, false); err != nil {
			return err
		}
		if e, err = rm.untagAll(e); err != nil {
			return err
		}
	}
	return rm.remove(e, false)
}

// oneRepository reports whether all names of an image are one tag at most, and digests of its repository.
func (e *entry) oneRepository() bool {
	if len(e.Tags) > 1 {
		return false
	}
	for _, d := range e.record.Digests {
		for _, other := range slices.Concat(e.Tags, e.record.Digests) {
			if repository(other) != repository(d) {
				return false
			}
		}
	}
	return true
}

// untag takes a name from the copy of an image that is being removed; it is written with the rest, so
// that a crash in between leaves the image as it was.
func (rm *remover) untag(e *entry, ref string) (*entry, error) {
	r := e.record
	r.Tags, r.Digests = without(r.Tags, ref), without(r.Digests, ref)
	if len(r.Tags) == len(e.Tags) && len(r.Digests) == len(e.record.Digests) {
		return nil, noSuchImage(familiarString(ref))
	}
	rm.out = append(rm.out, wire.ImageDelete{Untagged: familiarString(ref)})
	return e.with(r), nil
}

func (rm *remover) untagAll(e *entry) (_ *entry, err error) {
	for _, ref := range slices.Concat(e.Tags, e.record.Digests) {
		if e, err = rm.untag(e, ref); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// keep writes an image that lost names and stays.
func (rm *remover) keep(e *entry) error {
	if e == rm.s.byID(e.record.ID) {
		return nil // nothing changed
	}
	if err := rm.s.write([]*entry{e}); err != nil {
		return err
	}
	rm.tell(e)
	return nil
}

// tell reports the names that an image lost. As Docker's, the event has the image's ID for a name.
func (rm *remover) tell(e *entry) {
	for _, o := range rm.out[rm.told:] {
		if o.Untagged != "" {
			rm.s.tell("untag", e, e.record.ID.String(), e.record.ID.String())
		}
	}
	rm.told = len(rm.out)
}

// conflict says why an image cannot be removed. names is whether it may have no names either.
func (rm *remover) conflict(e *entry, names bool) error {
	hard := func(why string) error {
		return fault.New(fault.Conflict, "conflict: unable to delete %s (cannot be forced) - %s", short(e.record.ID), why)
	}
	soft := func(why string) error {
		return fault.New(fault.Conflict, "conflict: unable to delete %s (must be forced) - %s", short(e.record.ID), why)
	}
	if len(rm.s.children(e.record.ID)) > 0 {
		return hard("image has dependent child images")
	}
	users := rm.s.o.InUse(e.record.ID.String())
	for _, u := range users {
		if u.Running {
			return hard(fmt.Sprintf("image is being used by running container %.12s", u.ContainerID))
		}
	}
	if rm.force {
		return nil
	}
	if names && !e.dangling() {
		return soft("image is referenced in multiple repositories")
	}
	if len(users) > 0 {
		return soft(fmt.Sprintf("image is being used by stopped container %.12s", users[0].ContainerID))
	}
	return nil
}

// remove removes an image and, with prune, nameless ones below it. quiet leaves an image that is in
// use and tells nobody: only its name was to be removed.
func (rm *remover) remove(e *entry, quiet bool) error {
	if err := rm.conflict(e, true); err != nil {
		// An image that lost its last name while nobody uses it would be forgotten: that is told.
		used := len(rm.s.o.InUse(e.record.ID.String())) > 0 || len(rm.s.children(e.record.ID)) > 0
		if quiet && (!e.dangling() || used) {
			return rm.keep(e)
		}
		return err
	}
	e, err := rm.untagAll(e)
	if err != nil {
		return err
	}
	gone, err := rm.s.drop(e)
	if err != nil {
		return err
	}
	rm.tell(e)
	rm.s.o.Events("delete", e.record.ID.String(), map[string]string{"name": e.record.ID.String()})
	rm.out = append(rm.out, wire.ImageDelete{Deleted: e.record.ID.String()})
	for _, chain := range gone {
		rm.out = append(rm.out, wire.ImageDelete{Deleted: chain.String()})
	}
	parent := rm.s.byID(e.record.Parent)
	if !rm.prune || parent == nil || !parent.dangling() {
		return nil
	}
	below := remover{s: rm.s, prune: true, out: rm.out, told: len(rm.out)}
	err = below.remove(parent, true)
	rm.out, rm.told = below.out, below.told
	return err
}

// drop removes the row of an image, and what it alone used; it returns the layers that are gone.
// The caller holds change.
func (s *Store) drop(e *entry) ([]digest.Digest, error) {
	id := e.record.ID
	err := s.o.DB.Update(func(tx *state.Tx) error { return s.rows.In(tx).Delete(id.String()) })
	if err != nil {
		return nil, fmt.Errorf("remove image %s: %w", id, err)
	}
	s.mu.Lock()
	tags := s.images[id].Tags
	delete(s.images, id)
	for _, t := range tags {
		if s.tags[t] == id {
			delete(s.tags, t)
		}
	}
	s.mu.Unlock()
	s.writeIndex()
	var chains []digest.Digest
	for _, l := range slices.Backward(e.Layers) {
		chains = append(chains, l.Chain)
	}
	return s.sweep(e.blobs(), chains), nil
}
