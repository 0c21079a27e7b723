package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Signatures fetches the signatures of a manifest or index from beside it. None is no error. Nobody has
// verified them. A mirror that has none is followed by the registry itself, as it may not mirror them.
func (c *Client) Signatures(ctx context.Context, repo string, of digest.Digest, auth *wire.AuthConfig) ([]wire.Signature, error) {
	named, endpoints, err := c.signed(ctx, repo, of, auth)
	if err != nil {
		return nil, err
	}
	for _, at := range endpoints {
		var list []attachment
		r, cerr := c.connect(ctx, named, at, transport.PullScope)
		if err = cerr; err == nil {
			list, err = r.attachments(ctx, of)
		}
		if err == nil && (len(list) > 0 || !at.mirror) {
			return signatures(list), nil
		}
		if err != nil && (!at.mirror || ctx.Err() != nil) {
			return nil, fmt.Errorf("signatures of %s@%s: %w", reference.FamiliarName(named), of, pullError(named, at, err))
		}
	}
	return nil, nil
}

func (c *Client) signed(ctx context.Context, repo string, of digest.Digest, auth *wire.AuthConfig) (reference.Named, []endpoint, error) {
	named, err := parse(repo)
	if err != nil {
		return nil, nil, err
	}
	if err := of.Validate(); err != nil || of.Algorithm() != digest.SHA256 {
		return nil, nil, &fault.Field{Field: "digest", Given: of.String(), Expected: "sha256: and 64 hexadecimal digits"}
	}
	named = reference.TrimNamed(named)
	endpoints, err := c.endpoints(ctx, named, auth)
	return named, endpoints, err
}

func signatures(list []attachment) []wire.Signature {
	var found []wire.Signature
	for _, a := range list {
		found = append(found, a.Signature)
	}
	return found
}

// attachments reads the signatures of a digest, with what the manifest says of each.
func (r *repository) attachments(ctx context.Context, of digest.Digest) ([]attachment, error) {
	d, raw, err := r.manifest(ctx, signatureTag(of))
	if err != nil {
		if isMissing(err) {
			return nil, nil
		}
		return nil, err
	}
	list, err := parseSignatures(raw)
	if err != nil {
		return nil, fault.New(fault.ClassOf(err), "signature manifest %s: %w", d.Digest, err)
	}
	image := &Image{Name: r.named.Name(), Digest: d.Digest, Descriptor: d, repo: r}
	for i := range list {
		if list[i].Payload, err = image.ReadBlob(ctx, list[i].descriptor, maxPayload); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// isMissing reports whether a registry says that it has no such manifest, or no such repository.
func isMissing(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}

// signatureAttempts is how often a change of signatures that another client overwrote is made again: registries
// know no conditional update.
const signatureAttempts = 4

// AddSignature stores a signature beside an image, with those that are there.
func (c *Client) AddSignature(ctx context.Context, repo string, of digest.Digest, s wire.Signature, auth *wire.AuthConfig) error {
	return c.changeSignatures(ctx, repo, of, auth, func(list []attachment) ([]attachment, bool, error) {
		same := func(a attachment) bool {
			return string(a.Payload) == string(s.Payload) && string(a.Signature.Signature) == string(s.Signature)
		}
		if slices.ContainsFunc(list, same) {
			return list, false, nil
		}
		if len(list) >= maxSignatures {
			return nil, false, fault.New(fault.Conflict, "%s@%s has %d signatures already: revoke some", repo, of, len(list))
		}
		a, err := newAttachment(s)
		return append(list, a), true, err
	})
}

// RemoveSignatures removes those of the signatures beside an image that drop says, and returns them.
func (c *Client) RemoveSignatures(ctx context.Context, repo string, of digest.Digest, drop func(wire.Signature) bool, auth *wire.AuthConfig) ([]wire.Signature, error) {
	var removed []wire.Signature
	err := c.changeSignatures(ctx, repo, of, auth, func(list []attachment) ([]attachment, bool, error) {
		rest := slices.DeleteFunc(slices.Clone(list), func(a attachment) bool {
			if !drop(a.Signature) {
				return false
			}
			removed = append(removed, a.Signature)
			return true
		})
		return rest, len(rest) != len(list), nil
	})
	return removed, err
}

// changeSignatures makes a change until it is there. change reports whether there is anything to do.
func (c *Client) changeSignatures(ctx context.Context, repo string, of digest.Digest, auth *wire.AuthConfig, change func([]attachment) ([]attachment, bool, error)) error {
	named, endpoints, err := c.signed(ctx, repo, of, auth)
	if err != nil {
		return err
	}
	at := endpoints[len(endpoints)-1] // mirrors are for reading
	r, err := c.connect(ctx, named, at, transport.PushScope)
	if err != nil {
		return pushError(named, at, err)
	}
	c.signing.Lock()
	defer c.signing.Unlock()
	for range signatureAttempts {
		list, err := r.attachments(ctx, of)
		if err != nil {
			return fmt.Errorf("signatures of %s@%s: %w", reference.FamiliarName(named), of, pullError(named, at, err))
		}
		list, needed, err := change(list)
		if err != nil || !needed {
			return err
		}
		if err := r.putSignatures(ctx, of, list); err != nil {
			return fmt.Errorf("signatures of %s@%s: %w", reference.FamiliarName(named), of, pushError(named, at, err))
		}
	}
	return fault.New(fault.Conflict, "signatures of %s@%s: somebody else changes them all the time", reference.FamiliarName(named), of)
}

// putSignatures replaces the signatures of a digest. The last ones are deleted with their manifest, where
// the registry permits that; where it does not, an empty manifest takes its place.
func (r *repository) putSignatures(ctx context.Context, of digest.Digest, list []attachment) error {
	tag := signatureTag(of)
	if len(list) == 0 {
		d, _, err := r.manifest(ctx, tag)
		if err != nil {
			return err
		}
		resp, err := r.do(ctx, http.MethodDelete, r.url("manifests", d.Digest.String()), nil, http.StatusAccepted, http.StatusOK, http.StatusNoContent)
		if err == nil {
			resp.Body.Close()
			if _, _, err = r.manifest(ctx, tag); isMissing(err) {
				return nil
			}
		}
	}
	raw, config, err := makeSignatures(list)
	if err != nil {
		return err
	}
	remotes, err := remote.NewPusher(remote.WithTransport(r.round), remote.WithContext(ctx))
	if err != nil {
		return err
	}
	for _, a := range list {
		if err := remotes.Upload(ctx, r.name, static.NewLayer(a.Payload, types.MediaType(a.descriptor.MediaType))); err != nil {
			return err
		}
	}
	if err := remotes.Upload(ctx, r.name, static.NewLayer(config, types.MediaType(ocispec.MediaTypeImageConfig))); err != nil {
		return err
	}
	return remotes.Push(ctx, r.name.Tag(tag), taggable{raw: raw, mediaType: types.OCIManifestSchema1})
}

// Manifests tells what a reference stands for: the digest of a manifest or an index and, of an index, the
// digests of the manifests that it lists. The registry itself is asked, no mirror.
func (c *Client) Manifests(ctx context.Context, ref string, auth *wire.AuthConfig) (ocispec.Descriptor, []digest.Digest, error) {
	named, err := parse(ref)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	endpoints, err := c.endpoints(ctx, named, auth)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	at := endpoints[len(endpoints)-1]
	r, err := c.connect(ctx, named, at, transport.PullScope)
	if err != nil {
		return ocispec.Descriptor{}, nil, pullError(named, at, err)
	}
	d, raw, err := r.manifest(ctx, identifier(named))
	if err != nil || !isIndex(d.MediaType) {
		return d, nil, pullError(named, at, err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return d, nil, fault.New(fault.Invalid, "index %s: %w", d.Digest, err)
	}
	if len(index.Manifests) > maxListed {
		return d, nil, fault.New(fault.Invalid, "index %s: %d manifests: expected at most %d", d.Digest, len(index.Manifests), maxListed)
	}
	var listed []digest.Digest
	for _, m := range index.Manifests {
		if err := m.Digest.Validate(); err != nil {
			return d, nil, fault.New(fault.Invalid, "index %s: digest %q: %w", d.Digest, m.Digest, err)
		}
		listed = append(listed, m.Digest)
	}
	return d, listed, nil
}

// maxListed bounds the manifests of an index that is signed with them.
const maxListed = 64

// SignedDigests are the digests whose signatures are among a repository's tags.
func SignedDigests(tags []string) (signed []digest.Digest) {
	for _, t := range tags {
		hex, ok := strings.CutSuffix(t, ".sig")
		hex, sha := strings.CutPrefix(hex, "sha256-")
		if d := digest.NewDigestFromEncoded(digest.SHA256, hex); ok && sha && d.Validate() == nil {
			signed = append(signed, d)
		}
	}
	return signed
}
