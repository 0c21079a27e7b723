package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Insecurely returns a client that may speak to one more host in plain HTTP, or in TLS with any certificate.
func (c *Client) Insecurely(host string) *Client {
	old := c.rules.Load()
	r := *old
	r.hosts = map[string]bool{host: true}
	for h := range old.hosts {
		r.hosts[h] = true
	}
	other := &Client{log: c.log, verified: c.verified, trusting: c.trusting}
	other.rules.Store(&r)
	return other
}

// Stored is a manifest or an index as a registry has it.
type Stored struct {
	Named      reference.Named
	Descriptor ocispec.Descriptor // with the platform of an image
	Raw        []byte
}

// IsIndex reports whether it is a list of manifests.
func (s *Stored) IsIndex() bool { return isIndex(s.Descriptor.MediaType) }

// Manifest fetches what a reference names, be it an index, an image or an artifact, from its registry and no
// mirror. The platform of an image is read from its configuration.
func (c *Client) Manifest(ctx context.Context, ref string, auth *wire.AuthConfig) (*Stored, error) {
	named, err := parse(ref)
	if err != nil {
		return nil, err
	}
	repo, at, err := c.home(ctx, named, transport.PullScope, auth)
	if err != nil {
		return nil, pullError(named, at, err)
	}
	d, raw, err := repo.manifest(ctx, identifier(named))
	if err != nil {
		return nil, pullError(named, at, err)
	}
	s := &Stored{Named: named, Descriptor: d, Raw: raw}
	if s.IsIndex() {
		return s, nil
	}
	i := &Image{Name: named.Name(), Digest: d.Digest, Descriptor: d, Raw: raw, repo: repo}
	if err := i.decode(); err != nil {
		return nil, err
	}
	config, err := i.ReadBlob(ctx, i.Manifest.Config, maxManifest)
	if err != nil {
		return nil, pullError(named, at, err)
	}
	var p ocispec.Platform
	if json.Unmarshal(config, &p) == nil && p.OS != "" { // an artifact's may be anything
		s.Descriptor.Platform = &p
	}
	return s, nil
}

// home connects to the registry of a name itself.
func (c *Client) home(ctx context.Context, named reference.Named, scope string, auth *wire.AuthConfig) (*repository, endpoint, error) {
	endpoints, err := c.endpoints(ctx, named, auth)
	if err != nil {
		return nil, endpoint{}, err
	}
	at := endpoints[len(endpoints)-1] // the ones before it are mirrors
	repo, err := c.connect(ctx, named, at, scope)
	return repo, at, err
}

// PushIndex uploads images by their digests, and then the index of them under ref.
func (c *Client) PushIndex(ctx context.Context, ref string, index []byte, kind string, images []PushRequest, auth *wire.AuthConfig, progress func(wire.Message)) (ocispec.Descriptor, error) {
	none := ocispec.Descriptor{}
	named, err := parse(ref)
	if err != nil {
		return none, err
	}
	if progress == nil {
		progress = func(wire.Message) {}
	}
	repo, at, err := c.home(ctx, named, transport.PushScope, auth)
	if err != nil {
		return none, pushError(named, at, err)
	}
	for _, r := range images {
		var m ocispec.Manifest
		if err := json.Unmarshal(r.Raw, &m); err != nil {
			return none, fault.New(fault.Invalid, "push %s: manifest: %w", ref, err)
		}
		byDigest, err := reference.WithDigest(reference.TrimNamed(named), digest.FromBytes(r.Raw))
		if err != nil {
			return none, err
		}
		one := *repo
		one.named = byDigest
		p := pusher{repo: &one, blobs: r.Blobs, progress: progress}
		if _, err := p.push(ctx, m, r); err != nil {
			return none, pushError(named, at, err)
		}
	}
	d, err := repo.put(ctx, identifier(named), kind, index)
	if err != nil {
		return none, pushError(named, at, err)
	}
	progress(wire.Message{Status: fmt.Sprintf("%s: digest: %s size: %d", identifier(named), d.Digest, d.Size)})
	progress(wire.Message{Aux: map[string]any{"Tag": identifier(named), "Digest": d.Digest.String(), "Size": d.Size}})
	return d, nil
}

// PushList puts an index under ref whose manifests the same registry has, if in other repositories: these
// are mounted into the one of the index, with their blobs.
func (c *Client) PushList(ctx context.Context, ref string, index []byte, kind string, manifests []*Stored, auth *wire.AuthConfig) (ocispec.Descriptor, error) {
	named, err := parse(ref)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, m := range manifests {
		if from, to := reference.Domain(m.Named), reference.Domain(named); from != to {
			return ocispec.Descriptor{}, fault.New(fault.Invalid, "cannot use source images from a different registry than the target image: %s != %s", from, to)
		}
	}
	repo, at, err := c.home(ctx, named, transport.PushScope, auth)
	if err != nil {
		return ocispec.Descriptor{}, pushError(named, at, err)
	}
	for _, m := range manifests {
		if m.Named.Name() == named.Name() {
			continue
		}
		if err := c.adopt(ctx, repo, m, auth); err != nil {
			return ocispec.Descriptor{}, pushError(named, at, err)
		}
	}
	d, err := repo.put(ctx, identifier(named), kind, index)
	return d, pushError(named, at, err)
}

// adopt brings a manifest of another repository of the registry into this one.
func (c *Client) adopt(ctx context.Context, to *repository, s *Stored, auth *wire.AuthConfig) error {
	var m ocispec.Manifest
	if err := json.Unmarshal(s.Raw, &m); err != nil {
		return fault.New(fault.Invalid, "manifest %s: %w", s.Descriptor.Digest, err)
	}
	from, _, err := c.home(ctx, s.Named, transport.PullScope, auth)
	if err != nil {
		return err
	}
	for _, d := range append(m.Layers, m.Config) {
		mounted, err := to.mountBlob(ctx, d, reference.Path(s.Named))
		if err != nil {
			return err
		}
		if !mounted {
			if err := to.copyBlob(ctx, d, from); err != nil {
				return err
			}
		}
	}
	_, err = to.put(ctx, s.Descriptor.Digest.String(), s.Descriptor.MediaType, s.Raw)
	return err
}

// mountBlob makes a blob of another repository one of this (distribution-spec, "Mounting a blob from another
// repository"); false is when the registry wants to have it uploaded instead.
func (r *repository) mountBlob(ctx context.Context, d ocispec.Descriptor, from string) (bool, error) {
	q := url.Values{"mount": {d.Digest.String()}, "from": {from}}
	resp, err := r.do(ctx, http.MethodPost, r.url("blobs", "uploads/")+"?"+q.Encode(), nil, http.StatusCreated, http.StatusAccepted)
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusAccepted { // an upload that nobody goes on with
		if at, err := resp.Location(); err == nil && follows(resp.Request.URL, at) == nil {
			if gone, err := r.do(ctx, http.MethodDelete, at.String(), nil, http.StatusNoContent); err == nil {
				gone.Body.Close()
			}
		}
	}
	return resp.StatusCode == http.StatusCreated, nil
}

// copyBlob sends a blob from one repository to another through this machine.
func (r *repository) copyBlob(ctx context.Context, d ocispec.Descriptor, from *repository) error {
	start, err := r.do(ctx, http.MethodPost, r.url("blobs", "uploads/"), nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	start.Body.Close()
	at, err := start.Location()
	if err != nil {
		return fault.New(fault.Unavailable, "registry %s: upload: %w", r.host, err)
	}
	if err := follows(start.Request.URL, at); err != nil {
		return err
	}
	q := at.Query()
	q.Set("digest", d.Digest.String())
	at.RawQuery = q.Encode()
	blob, err := (&Image{Name: from.named.Name(), repo: from}).Blob(ctx, d)
	if err != nil {
		return err
	}
	defer blob.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, at.String(), blob)
	if err != nil {
		return err
	}
	req.ContentLength = d.Size
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := r.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusCreated)
}

// put stores a manifest or an index under a tag or its digest.
func (r *repository) put(ctx context.Context, id, kind string, raw []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: kind, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, r.url("manifests", id), bytes.NewReader(raw))
	if err != nil {
		return d, err
	}
	req.Header.Set("Content-Type", kind)
	resp, err := r.http.Do(req)
	if err != nil {
		return d, err
	}
	defer resp.Body.Close()
	return d, transport.CheckError(resp, http.StatusCreated)
}
