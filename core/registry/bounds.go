package registry

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

// What a registry may answer. Blobs have a size that their manifest tells; everything else is small.
const (
	// maxAnswer bounds an answer that is no blob: twice the largest manifest.
	maxAnswer = 2 * maxManifest
	// maxTelling is how long such an answer may take, so that one that comes byte by byte ends too.
	maxTelling = 5 * time.Minute
	// maxBlob bounds the size of a blob that a manifest may tell, as content.MaxBlob that of one without a size.
	maxBlob = 1 << 38
)

// asBlob marks requests for blobs, whose readers count for themselves.
type asBlob struct{}

func forBlob(ctx context.Context) context.Context { return context.WithValue(ctx, asBlob{}, true) }

// bounded carries requests whose answers end.
type bounded struct {
	inner   http.RoundTripper
	most    int64
	telling time.Duration
}

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.inner.RoundTrip(r)
	if err != nil || r.Context().Value(asBlob{}) != nil && (resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent) {
		return resp, err
	}
	answer := &boundedBody{ReadCloser: resp.Body, from: r.URL.Redacted(), left: b.most, most: b.most}
	answer.watch = time.AfterFunc(b.telling, func() {
		answer.late.Store(true)
		answer.ReadCloser.Close()
	})
	resp.Body = answer
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	from       string
	left, most int64
	watch      *time.Timer
	late       atomic.Bool
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		// There may be nothing more.
		if n, err := b.ReadCloser.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		_ = b.Close() // not everybody closes what could not be read
		return 0, fault.New(fault.Invalid, "%q: the answer has more than %d bytes", b.from, b.most)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil && b.late.Load() {
		err = fault.New(fault.Unavailable, "%q: the answer does not come to its end", b.from)
	}
	return n, err
}

func (b *boundedBody) Close() error {
	b.watch.Stop()
	return b.ReadCloser.Close()
}

// CheckKind refuses a manifest that can be read as an image and as an index: what one program verifies would be
// something else to the next (CVE-2021-41190; image-spec, manifest.md, "mediaType"). kind is what it was announced as,
// "" for nothing.
func CheckKind(kind string, raw []byte) error {
	var m struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
		History   json.RawMessage `json:"fsLayers"`
	}
	if json.Unmarshal(raw, &m) != nil {
		return nil //nolint:nilerr // whoever decodes it says why
	}
	has := func(v json.RawMessage) bool { return len(v) > 0 && string(v) != "null" }
	switch {
	case isKnown(kind) && isKnown(m.MediaType) && kind != m.MediaType:
		return fault.New(fault.Invalid, "it says that it is %q and was announced as %q", m.MediaType, kind)
	case has(m.Manifests) && (has(m.Config) || has(m.Layers)):
		return fault.New(fault.Invalid, "it has manifests, as an index, and config or layers, as an image")
	case has(m.History) && (has(m.Manifests) || has(m.Config) || has(m.Layers)):
		return fault.New(fault.Invalid, "it has fsLayers, as schema version 1, and what an index or an image has")
	}
	return nil
}

func isKnown(kind string) bool {
	switch kind {
	case ocispec.MediaTypeImageManifest, MediaTypeDockerManifest, mediaTypeSchema1, mediaTypeSchema1Signed:
		return true
	}
	return isIndex(kind)
}

// checkChild compares a manifest with what an index says of it.
func checkChild(child, got ocispec.Descriptor) error {
	switch {
	case child.Size != got.Size:
		return fault.New(fault.Invalid, "manifest %s: its index says %d bytes, it has %d", got.Digest, child.Size, got.Size)
	case isKnown(child.MediaType) && isKnown(got.MediaType) && isIndex(child.MediaType) != isIndex(got.MediaType):
		return fault.New(fault.Invalid, "manifest %s: its index says that it is %q, it is %q", got.Digest, child.MediaType, got.MediaType)
	}
	return nil
}

// follows refuses the place of an upload that leads the engine to where only it can go: to another host without TLS, or
// to one of this machine or of the networks around it. A store of blobs under another name is none of these.
func follows(from, to *url.URL) error {
	if to.Host == from.Host && (to.Scheme == from.Scheme || to.Scheme == "https") {
		return nil
	}
	a, err := netip.ParseAddr(to.Hostname())
	inside := err == nil && (a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast())
	if to.Scheme != "https" || inside || to.Hostname() == "localhost" {
		return fault.New(fault.Invalid, "registry %s sends the upload to %q: expected its own address, or a host with TLS", from.Host, to.Redacted())
	}
	return nil
}
