package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Docker's media types, which older registries and images have in the place of the OCI's.
const (
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeSchema1        = "application/vnd.docker.distribution.manifest.v1+json"
	mediaTypeSchema1Signed  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// maxManifest bounds a manifest or an index, as most registries do (distribution-spec, "Pushing
// Manifests").
const maxManifest = 4 << 20

// maxNesting bounds how many indexes lie above a manifest. Real images have one.
const maxNesting = 3

var acceptManifests = http.Header{"Accept": {strings.Join([]string{
	ocispec.MediaTypeImageIndex, MediaTypeDockerList, ocispec.MediaTypeImageManifest, MediaTypeDockerManifest,
}, ", ")}}

// Image is an image as a registry has it. Its blobs can be fetched in parallel.
type Image struct {
	// Name is the repository in full: "docker.io/library/busybox".
	Name string
	// Digest is what the reference names: the digest of an index, or of the manifest itself.
	Digest digest.Digest
	// Descriptor is that of the manifest, and Raw its bytes.
	Descriptor ocispec.Descriptor
	Raw        []byte
	Manifest   ocispec.Manifest

	repo   *repository
	client *Client // of behind
	behind []place // where its blobs are, too, if a mirror had it

	mu  sync.Mutex
	now int // the place that blobs are asked for at; 0 is repo
}

// Resolve finds the image that ref names for a platform; an empty one is the host's. Mirrors are
// asked first.
func (c *Client) Resolve(ctx context.Context, ref string, platform ocispec.Platform, auth *wire.AuthConfig) (*Image, error) {
	named, err := parse(ref)
	if err != nil {
		return nil, err
	}
	endpoints, err := c.endpoints(ctx, named, auth)
	if err != nil {
		return nil, err
	}
	for n, at := range endpoints {
		image, err := c.resolveAt(ctx, named, at, platform)
		if err == nil {
			image.client = c
			for _, e := range endpoints[n+1:] {
				image.behind = append(image.behind, place{endpoint: e})
			}
		}
		if err == nil || !at.mirror || ctx.Err() != nil {
			return image, pullError(named, at, err)
		}
		c.log.Info("registry mirror has not the image", "mirror", at.host, "image", reference.FamiliarString(named), "error", err)
	}
	return nil, fault.New(fault.Internal, "no registry for %s", ref)
}

func (c *Client) resolveAt(ctx context.Context, named reference.Named, at endpoint, platform ocispec.Platform) (*Image, error) {
	repo, err := c.connect(ctx, named, at, transport.PullScope)
	if err != nil {
		return nil, err
	}
	d, raw, err := repo.manifest(ctx, identifier(named))
	if err != nil {
		return nil, err
	}
	image := &Image{Name: named.Name(), Digest: d.Digest, repo: repo}
	platform = orHost(platform)
	for range maxNesting {
		if !isIndex(d.MediaType) {
			break
		}
		var index ocispec.Index
		if err := json.Unmarshal(raw, &index); err != nil {
			return nil, fault.New(fault.Invalid, "index %s: %s", d.Digest, oneLine(err.Error()))
		}
		child, err := choose(index.Manifests, platform)
		if err != nil {
			return nil, err
		}
		if err := child.Digest.Validate(); err != nil {
			return nil, fault.New(fault.Invalid, "index %s: digest %q: %w", d.Digest, oneLine(child.Digest.String()), err)
		}
		if d, raw, err = repo.manifest(ctx, child.Digest.String()); err != nil {
			return nil, err
		}
		if err := checkChild(child, d); err != nil {
			return nil, err
		}
	}
	image.Descriptor, image.Raw = d, raw
	return image, image.decode()
}

// decode reads the manifest and checks what the rest of the engine relies on.
func (i *Image) decode() error {
	switch i.Descriptor.MediaType {
	case ocispec.MediaTypeImageManifest, MediaTypeDockerManifest:
	case mediaTypeSchema1, mediaTypeSchema1Signed:
		return fault.New(fault.NotImplemented, "image %s has a manifest of schema version 1, which is not supported: push it again with a newer client", i.Name)
	default:
		return fault.New(fault.Invalid, "manifest %s: media type %q: expected that of an image", i.Digest, oneLine(i.Descriptor.MediaType))
	}
	if err := json.Unmarshal(i.Raw, &i.Manifest); err != nil {
		return fault.New(fault.Invalid, "manifest %s: %s", i.Digest, oneLine(err.Error()))
	}
	for _, d := range append([]ocispec.Descriptor{i.Manifest.Config}, i.Manifest.Layers...) {
		if err := d.Digest.Validate(); err != nil {
			return fault.New(fault.Invalid, "manifest %s: digest %q: %w", i.Digest, oneLine(d.Digest.String()), err)
		}
		if d.Size < 0 || d.Size > maxBlob {
			return fault.New(fault.Invalid, "manifest %s: blob %s: size %d: expected 0 to %d bytes", i.Digest, d.Digest, d.Size, int64(maxBlob))
		}
	}
	return nil
}

// manifest fetches a manifest or an index by tag or digest.
func (r *repository) manifest(ctx context.Context, id string) (ocispec.Descriptor, []byte, error) {
	resp, err := r.do(ctx, http.MethodGet, r.url("manifests", id), acceptManifests, http.StatusOK)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return ocispec.Descriptor{}, nil, fmt.Errorf("read manifest %s: %w", id, err)
	}
	if len(raw) > maxManifest {
		return ocispec.Descriptor{}, nil, fault.New(fault.Invalid, "manifest %s: expected at most %d bytes", id, maxManifest)
	}
	d := ocispec.Descriptor{MediaType: mediaType(resp.Header.Get("Content-Type"), raw), Size: int64(len(raw))}
	algorithm := digest.SHA256
	if want, err := digest.Parse(id); err == nil {
		algorithm = want.Algorithm()
	}
	d.Digest = algorithm.FromBytes(raw)
	if strings.Contains(id, ":") && d.Digest.String() != id {
		return d, nil, fault.New(fault.Invalid, "manifest verification failed for digest %s: its content has digest %s", id, d.Digest)
	}
	announced, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) //nolint:errcheck // then it announces nothing
	if err := CheckKind(announced, raw); err != nil {
		return d, nil, fault.New(fault.Invalid, "manifest %s: %w", d.Digest, err)
	}
	return d, raw, nil
}

// mediaType returns a manifest's type: what it says of itself, or else what the registry says. A
// registry that stores a file without knowing it answers text/plain, and the reverse, a manifest that
// lies about itself, fails to decode.
func mediaType(header string, raw []byte) string {
	var m struct {
		MediaType     string            `json:"mediaType"`
		SchemaVersion int               `json:"schemaVersion"`
		Manifests     []json.RawMessage `json:"manifests"`
		Layers        []json.RawMessage `json:"layers"`
	}
	if json.Unmarshal(raw, &m) == nil && m.MediaType != "" {
		return m.MediaType
	}
	if t, _, err := mime.ParseMediaType(header); err == nil && strings.HasSuffix(t, "json") && t != "application/json" || strings.HasSuffix(header, "prettyjws") {
		return t
	}
	switch {
	case m.SchemaVersion == 1:
		return mediaTypeSchema1
	case m.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case m.Layers != nil:
		return ocispec.MediaTypeImageManifest
	}
	return header
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == MediaTypeDockerList
}

// Distribution answers what a registry knows of a reference: its descriptor and platforms.
func (c *Client) Distribution(ctx context.Context, ref string, auth *wire.AuthConfig) (wire.DistributionInspect, error) {
	named, err := parse(ref)
	if err != nil {
		return wire.DistributionInspect{}, err
	}
	endpoints, err := c.endpoints(ctx, named, auth)
	if err != nil {
		return wire.DistributionInspect{}, err
	}
	var answer wire.DistributionInspect
	for _, at := range endpoints {
		if answer, err = c.distributionAt(ctx, named, at); err == nil || !at.mirror || ctx.Err() != nil {
			return answer, pullError(named, at, err)
		}
	}
	return answer, err
}

func (c *Client) distributionAt(ctx context.Context, named reference.Named, at endpoint) (wire.DistributionInspect, error) {
	repo, err := c.connect(ctx, named, at, transport.PullScope)
	if err != nil {
		return wire.DistributionInspect{}, err
	}
	d, raw, err := repo.manifest(ctx, identifier(named))
	if err != nil {
		return wire.DistributionInspect{}, err
	}
	answer := wire.DistributionInspect{Descriptor: wire.Descriptor{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size}}
	if isIndex(d.MediaType) {
		var index ocispec.Index
		if err := json.Unmarshal(raw, &index); err != nil {
			return answer, fault.New(fault.Invalid, "index %s: %w", d.Digest, err)
		}
		for _, m := range index.Manifests {
			if m.Platform != nil {
				answer.Platforms = append(answer.Platforms, wirePlatform(*m.Platform))
			}
		}
		return answer, nil
	}
	image := &Image{Name: named.Name(), Digest: d.Digest, Descriptor: d, Raw: raw, repo: repo}
	if err := image.decode(); err != nil {
		return answer, err
	}
	config, err := image.ReadBlob(ctx, image.Manifest.Config, maxManifest)
	if err != nil {
		return answer, err
	}
	var p ocispec.Platform
	if err := json.Unmarshal(config, &p); err != nil {
		return answer, fault.New(fault.Invalid, "image configuration %s: %w", image.Manifest.Config.Digest, err)
	}
	answer.Platforms = []wire.Platform{wirePlatform(p)}
	return answer, nil
}

func wirePlatform(p ocispec.Platform) wire.Platform {
	return wire.Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant}
}
