package image

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/trust"
	"github.com/sampan-project/sampan/core/wire"
)

// admission is that a remote image may be kept, and why.
type admission struct {
	asked      trust.Reference
	signatures []wire.Signature // kept with the image, so that it can be judged again without its registry
	verdict    trust.Verdict
}

// admit decides whether an image that was found at its registry may be fetched. What it decides about is the
// digests that were found, which are also what is fetched: the tag is not asked for again.
func (s *Store) admit(ctx context.Context, named reference.Named, remote *registry.Image, auth *wire.AuthConfig) (admission, error) {
	asked, err := trust.ParseReference(named.String())
	if err != nil {
		return admission{}, err
	}
	a, rule := admission{asked: asked}, s.o.Trust.For(asked.Repository)
	digests := []string{remote.Digest.String()}
	if remote.Descriptor.Digest != remote.Digest {
		digests = append(digests, remote.Descriptor.Digest.String())
	}
	if rule.Action == trust.Signed {
		for _, d := range digests {
			list, err := s.o.Registry.Signatures(ctx, asked.Repository, digest.Digest(d), auth)
			if err != nil {
				return a, fault.New(fault.Forbidden, "image %s is refused by the trust policy: %w", asked, err)
			}
			a.signatures = append(a.signatures, list...)
		}
	}
	if a.verdict, err = rule.Verify(asked, digests, a.signatures); err != nil {
		return a, err
	}
	return a, s.checkAge(a)
}

// accepted is the row of a tag whose image was let in by signatures.
type accepted struct {
	Time   time.Time `json:"time"` // of the newest of them
	Digest string    `json:"digest"`
}

// checkAge refuses a signature that is older than one that was accepted for the same tag: a registry that was
// taken over has all the old ones, and could go back to an image whose faults are known.
func (s *Store) checkAge(a admission) error {
	if a.asked.Tag == "" || a.asked.Digest != "" || len(a.verdict.Signers) == 0 {
		return nil
	}
	before, err := s.accepted.Get(a.asked.String())
	if fault.Is(err, fault.NotFound) || err == nil && !a.verdict.Time.Before(before.Time) {
		return nil
	}
	if err != nil {
		return err
	}
	return fault.New(fault.Forbidden, "image %s is refused by the trust policy: its signature of %s is older than the one of %s that was accepted before: sign it again if it is meant",
		a.asked, signedAt(a.verdict.Time), signedAt(before.Time))
}

func signedAt(t time.Time) string {
	if t.IsZero() {
		return "no time"
	}
	return t.UTC().Format(time.RFC3339)
}

// accept remembers what was let in. A time to come is not remembered as such: a wrong clock would
// shut out every signature until then.
func (s *Store) accept(a admission, d digest.Digest) error {
	if a.asked.Tag == "" || a.asked.Digest != "" || a.verdict.Time.IsZero() {
		return nil
	}
	at := a.verdict.Time
	if now := time.Now().UTC().Truncate(time.Second); at.After(now) {
		at = now
	}
	return s.accepted.Put(a.asked.String(), accepted{at, d.String()})
}

// Use is Get for who is about to run an image or to build on it: the trust policy is asked, with the
// signatures that came with the image. A name stands for itself; an image by its ID may be used if it may be by one of
// its names.
func (s *Store) Use(_ context.Context, ref string) (*Image, error) {
	e, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	if err := e.runnable(ref); err != nil {
		return nil, err
	}
	if err := s.permit(e, ref); err != nil {
		return nil, err
	}
	return e.Image.clone(), nil
}

func (s *Store) permit(e *entry, ref string) error {
	names := slices.Concat(e.Tags, e.record.Digests)
	if named, err := parseName(ref); err == nil && s.byName(named) == e {
		names = []string{reference.TagNameOnly(named).String()}
	}
	if len(names) == 0 { // made here, or forgotten
		if s.o.Trust.For("").Action == trust.Reject {
			return fault.New(fault.Forbidden, "image %s is refused by the trust policy: it has no name, and default rejects it", short(e.record.ID))
		}
		return nil
	}
	var first error
	for _, name := range names {
		err := s.permitAs(e, name)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (s *Store) permitAs(e *entry, name string) error {
	asked, err := trust.ParseReference(name)
	if err != nil {
		return err
	}
	rule := s.o.Trust.For(asked.Repository)
	_, err = rule.Verify(asked, e.digestsIn(asked.Repository), e.Signatures)
	if err != nil && rule.Action == trust.Signed && len(e.Signatures) == 0 {
		return fmt.Errorf("%w: pull it again, if it is signed", err)
	}
	return err
}

// digestsIn are the digests by which a repository has the image.
func (e *entry) digestsIn(repo string) []string {
	list := []string{e.record.Manifest.Digest.String()}
	for _, d := range e.record.Digests {
		if repository(d) == repo {
			list = append(list, d[len(repo)+1:])
		}
	}
	return list
}

// mergeSignatures returns both lists, each signature once, the newer list first and no more than are read.
func mergeSignatures(newer, older []wire.Signature) []wire.Signature {
	all := slices.Clone(newer)
	for _, o := range older {
		if !slices.ContainsFunc(all, func(n wire.Signature) bool { return sameSignature(n, o) }) {
			all = append(all, o)
		}
	}
	return all[:min(len(all), trust.MaxKept)]
}

func sameSignature(a, b wire.Signature) bool {
	return string(a.Payload) == string(b.Payload) && string(a.Signature) == string(b.Signature)
}

// TrustData tells what a registry has of signatures: of a tag or a digest, or of all signed tags of a
// repository. Nothing is verified: who trusts whom is for the asker to know.
func (s *Store) TrustData(ctx context.Context, ref string, auth *wire.AuthConfig) (wire.TrustData, error) {
	named, err := parseName(ref)
	if err != nil {
		return wire.TrustData{}, err
	}
	data := wire.TrustData{Repository: named.Name(), Tags: []wire.SignedTag{}}
	if !reference.IsNameOnly(named) {
		tag, err := s.signedTag(ctx, named, auth)
		data.Tags = append(data.Tags, tag)
		return data, err
	}
	signed, err := s.signedDigests(ctx, named, auth)
	if err != nil {
		return data, err
	}
	// Claims name the tags, so that not each tag must be asked for.
	tags := map[string]bool{}
	for _, d := range signed {
		list, err := s.o.Registry.Signatures(ctx, named.Name(), d, auth)
		if err != nil {
			return data, err
		}
		for _, sig := range list {
			if said, ok := claimed(sig, named); ok && said.Tag != "" {
				tags[said.Tag] = true
			}
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		tagged, err := reference.WithTag(named, tag)
		if err != nil {
			continue // a claim may say anything
		}
		found, err := s.signedTag(ctx, tagged, auth)
		switch {
		case fault.Is(err, fault.NotFound): // signed, and gone since
		case err != nil:
			return data, err
		default:
			data.Tags = append(data.Tags, found)
		}
	}
	return data, nil
}

// maxSigned bounds the signed digests of a repository that are looked through.
const maxSigned = 1000

func (s *Store) signedDigests(ctx context.Context, named reference.Named, auth *wire.AuthConfig) ([]digest.Digest, error) {
	tags, err := s.o.Registry.Tags(ctx, named.Name(), maxTags, auth)
	if err != nil {
		return nil, err
	}
	signed := registry.SignedDigests(tags)
	if len(signed) > maxSigned {
		return nil, fault.New(fault.Invalid, "repository %s has signatures of %d images: expected at most %d, name a tag", reference.FamiliarName(named), len(signed), maxSigned)
	}
	return signed, nil
}

func (s *Store) signedTag(ctx context.Context, named reference.Named, auth *wire.AuthConfig) (wire.SignedTag, error) {
	d, listed, err := s.o.Registry.Manifests(ctx, named.String(), auth)
	if err != nil {
		return wire.SignedTag{}, err
	}
	found := wire.SignedTag{Digest: d.Digest.String(), Signatures: []wire.Signature{}}
	if t, ok := named.(reference.Tagged); ok {
		found.Tag = t.Tag()
	}
	for _, l := range listed {
		found.Manifests = append(found.Manifests, l.String())
	}
	for _, one := range append([]digest.Digest{d.Digest}, listed...) {
		list, err := s.o.Registry.Signatures(ctx, named.Name(), one, auth)
		if err != nil {
			return found, err
		}
		found.Signatures = append(found.Signatures, list...)
	}
	return found, nil
}

// claimed is what a signature says of a repository.
func claimed(sig wire.Signature, named reference.Named) (trust.Reference, bool) {
	c, err := trust.ParseClaim(sig.Payload)
	if err != nil {
		return trust.Reference{}, false
	}
	said, err := trust.ParseReference(c.Reference)
	return said, err == nil && said.Repository == named.Name()
}

// Sign stores a signature that a client made beside the image, and with the image if it is here.
func (s *Store) Sign(ctx context.Context, ref string, r wire.SignRequest, auth *wire.AuthConfig) error {
	named, err := parseName(ref)
	if err != nil {
		return err
	}
	c, err := trust.ParseClaim(r.Signature.Payload)
	if err != nil {
		return err
	}
	if c.Digest != r.Digest {
		return fault.New(fault.Invalid, "sign %s: the claim is about %s: expected %s", ref, c.Digest, r.Digest)
	}
	if said, ok := claimed(r.Signature, named); !ok {
		return fault.New(fault.Invalid, "sign %s: the claim is about %s: expected one about %s", ref, said, named.Name())
	}
	of := digest.Digest(c.Digest)
	canonical, err := reference.WithDigest(reference.TrimNamed(named), of)
	if err != nil {
		return fault.As(fault.Invalid, err)
	}
	if _, _, err := s.o.Registry.Manifests(ctx, canonical.String(), auth); err != nil {
		return err
	}
	if err := s.o.Registry.AddSignature(ctx, named.Name(), of, r.Signature, auth); err != nil {
		return err
	}
	return s.changeKept(named, of, func(list []wire.Signature) []wire.Signature {
		return mergeSignatures([]wire.Signature{r.Signature}, list)
	})
}

// Revoke removes the signatures of a tag, whatever it stood for, or of a whole repository, from the registry
// and from the images that are here.
func (s *Store) Revoke(ctx context.Context, ref string, auth *wire.AuthConfig) (int, error) {
	named, err := parseName(ref)
	if err != nil {
		return 0, err
	}
	if _, ok := named.(reference.Digested); ok {
		return 0, fault.New(fault.Invalid, "cannot use a digest reference for IMAGE:TAG")
	}
	signed, err := s.signedDigests(ctx, named, auth)
	if err != nil {
		return 0, err
	}
	tag := ""
	var now []digest.Digest // what the tag stands for
	if t, ok := named.(reference.Tagged); ok {
		tag = t.Tag()
		d, listed, err := s.o.Registry.Manifests(ctx, named.String(), auth)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return 0, err
		}
		now = append(listed, d.Digest)
	}
	count := 0
	for _, d := range signed {
		drop := func(sig wire.Signature) bool {
			said, ok := claimed(sig, named)
			// A claim without a tag is about every tag of its digest.
			return tag == "" || ok && (said.Tag == tag || said.Tag == "" && slices.Contains(now, d))
		}
		removed, err := s.o.Registry.RemoveSignatures(ctx, named.Name(), d, drop, auth)
		if err != nil {
			return count, err
		}
		count += len(removed)
		err = s.changeKept(named, d, func(list []wire.Signature) []wire.Signature {
			return slices.DeleteFunc(slices.Clone(list), func(have wire.Signature) bool {
				return slices.ContainsFunc(removed, func(gone wire.Signature) bool { return sameSignature(have, gone) })
			})
		})
		if err != nil {
			return count, err
		}
	}
	if count == 0 {
		return 0, fault.New(fault.NotFound, "no signatures for %s", reference.FamiliarString(named))
	}
	return count, nil
}

// changeKept changes the signatures that are kept with the images that a repository has by a digest.
func (s *Store) changeKept(named reference.Named, of digest.Digest, change func([]wire.Signature) []wire.Signature) error {
	s.change.Lock()
	defer s.change.Unlock()
	var changed []*entry
	for _, e := range s.all() {
		if !slices.Contains(e.digestsIn(named.Name()), of.String()) {
			continue
		}
		r := e.record
		r.Signatures = change(r.Signatures)
		if len(r.Signatures) != len(e.Signatures) {
			changed = append(changed, e.with(r))
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return s.write(changed)
}
