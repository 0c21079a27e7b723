package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// How cosign keeps signatures beside an image (sigstore/cosign, specs/SIGNATURE_SPEC.md): as the layers of
// an image in the same repository, whose tag is made of the digest that is signed.
const (
	mediaTypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	annotationSignature    = "dev.cosignproject.cosign/signature"
)

// Bounds of a signature manifest; real ones have one to three signatures of some hundred bytes.
const (
	maxSignatures        = 64
	maxSignatureManifest = 256 << 10
	maxPayload           = 16 << 10
	maxRawSignature      = 1 << 10
)

func signatureTag(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() + ".sig" }

// attachment is a signature with its descriptor as it stands in the manifest, where others have said more
// of it than we know.
type attachment struct {
	wire.Signature
	descriptor ocispec.Descriptor
}

func newAttachment(s wire.Signature) (attachment, error) {
	if len(s.Payload) == 0 || len(s.Payload) > maxPayload || len(s.Signature) == 0 || len(s.Signature) > maxRawSignature {
		return attachment{}, fault.New(fault.Invalid, "signature: %d bytes of %d signed: expected at most %d of %d", len(s.Signature), len(s.Payload), maxRawSignature, maxPayload)
	}
	return attachment{s, ocispec.Descriptor{
		MediaType: mediaTypeSimpleSigning, Digest: digest.FromBytes(s.Payload), Size: int64(len(s.Payload)),
		Annotations: map[string]string{annotationSignature: base64.StdEncoding.EncodeToString(s.Signature)},
	}}, nil
}

// parseSignatures reads the manifest of signatures; what is signed is in blobs. Layers of another kind are
// somebody else's, and left out; a signature that is malformed makes the manifest so: nobody but who writes to the
// repository makes one, and to leave it out would hide that.
func parseSignatures(raw []byte) ([]attachment, error) {
	if len(raw) > maxSignatureManifest {
		return nil, fault.New(fault.Invalid, "%d bytes: expected at most %d", len(raw), maxSignatureManifest)
	}
	if err := noDuplicates(raw); err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	if m.SchemaVersion != 2 || m.MediaType != "" && m.MediaType != ocispec.MediaTypeImageManifest && m.MediaType != MediaTypeDockerManifest {
		return nil, fault.New(fault.Invalid, "schema version %d, media type %q: expected an image manifest", m.SchemaVersion, oneLine(m.MediaType))
	}
	if len(m.Layers) > maxSignatures {
		return nil, fault.New(fault.Invalid, "%d signatures: expected at most %d", len(m.Layers), maxSignatures)
	}
	var list []attachment
	for i, d := range m.Layers {
		if d.MediaType != mediaTypeSimpleSigning {
			continue
		}
		if err := d.Digest.Validate(); err != nil || d.Digest.Algorithm() != digest.SHA256 {
			return nil, fault.New(fault.Invalid, "layer %d: digest %q: expected sha256 and 64 hexadecimal digits", i, oneLine(d.Digest.String()))
		}
		if d.Size <= 0 || d.Size > maxPayload {
			return nil, fault.New(fault.Invalid, "layer %d: size %d: expected 1 to %d bytes", i, d.Size, maxPayload)
		}
		encoded := d.Annotations[annotationSignature]
		if len(encoded) > 2*maxRawSignature {
			return nil, fault.New(fault.Invalid, "layer %d: annotation %s: expected at most %d bytes", i, annotationSignature, maxRawSignature)
		}
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(signature) == 0 {
			return nil, fault.New(fault.Invalid, "layer %d: annotation %s: expected a signature in base64", i, annotationSignature)
		}
		list = append(list, attachment{wire.Signature{Signature: signature}, d})
	}
	return list, nil
}

// noDuplicates refuses JSON in which an object has a key twice: readers disagree on which of them holds.
func noDuplicates(raw []byte) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	type level struct {
		keys map[string]bool // nil: an array
		next bool            // the next text is a key
	}
	var stack []level
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.New(fault.Invalid, "%w", err)
		}
		top := len(stack) - 1
		switch v := t.(type) {
		case json.Delim:
			switch v {
			case '{':
				stack = append(stack, level{map[string]bool{}, true})
			case '[':
				stack = append(stack, level{})
			default:
				stack = stack[:top]
				if top > 0 {
					stack[top-1].next = true
				}
			}
			continue
		case string:
			if top >= 0 && stack[top].keys != nil && stack[top].next {
				if stack[top].keys[v] {
					return fault.New(fault.Invalid, "the key %q is there twice", oneLine(v))
				}
				stack[top].keys[v], stack[top].next = true, false
				continue
			}
		}
		if top >= 0 {
			stack[top].next = true
		}
	}
}

// makeSignatures returns the manifest of signatures, and its configuration: as of an image, whose layers
// are what was signed, because cosign and skopeo add theirs to it as to an image.
func makeSignatures(list []attachment) (manifest, config []byte, err error) {
	image := ocispec.Image{}
	image.RootFS.Type, image.RootFS.DiffIDs = "layers", []digest.Digest{}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	for _, a := range list {
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, a.descriptor.Digest)
		m.Layers = append(m.Layers, a.descriptor)
	}
	if config, err = json.Marshal(image); err != nil {
		return nil, nil, err
	}
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	manifest, err = json.Marshal(m)
	return manifest, config, err
}
