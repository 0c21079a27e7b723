package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's manifests (distribution's image manifest v2 schema 2).
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// MaxManifest bounds a manifest, as the distribution specification recommends.
const MaxManifest = 4 << 20

// Manifest is one as it was pushed.
type Manifest struct {
	Digest    digest.Digest
	MediaType string
	Content   []byte
}

// contents is what is read of a manifest of any kind.
type contents struct {
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Annotations  map[string]string    `json:"annotations"`
}

// InvalidError is a manifest that is refused; Missing is what it names and the repository has not.
type InvalidError struct {
	Reason  string
	Missing digest.Digest
}

func (e *InvalidError) Error() string { return e.Reason }

// maxReason bounds a refusal, which quotes what it refuses.
const maxReason = 1 << 10

func refuse(format string, args ...any) error {
	reason := fmt.Sprintf(format, args...)
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "..."
	}
	return &InvalidError{Reason: reason}
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerList
}

// parse reads a manifest and refuses one that says it is another kind: what a client takes for an image must
// not be an index for the next one.
func parse(mediaType string, content []byte) (contents, error) {
	var c contents
	if !isIndex(mediaType) && mediaType != ocispec.MediaTypeImageManifest && mediaType != dockerManifest {
		return c, refuse("media type %q: expected that of an OCI or Docker (schema 2) manifest or index", mediaType)
	}
	if err := json.Unmarshal(content, &c); err != nil {
		return c, refuse("manifest: %v", err)
	}
	switch {
	case c.MediaType != "" && c.MediaType != mediaType:
		return c, refuse("mediaType %q: expected the Content-Type %q", c.MediaType, mediaType)
	case isIndex(mediaType) && (c.Config != nil || c.Layers != nil):
		return c, refuse("an index has neither config nor layers")
	case !isIndex(mediaType) && c.Manifests != nil:
		return c, refuse("an image manifest has no manifests")
	case !isIndex(mediaType) && c.Config == nil:
		return c, refuse("config: expected a descriptor")
	}
	for _, d := range c.references() {
		if err := d.Digest.Validate(); err != nil {
			return c, refuse("digest %q: %v", d.Digest, err)
		}
	}
	if c.Subject != nil {
		if err := c.Subject.Digest.Validate(); err != nil {
			return c, refuse("subject: digest %q: %v", c.Subject.Digest, err)
		}
	}
	return c, nil
}

// references are what the manifest names and a repository must have.
func (c contents) references() []ocispec.Descriptor {
	list := slices.Concat(c.Layers, c.Manifests)
	if c.Config != nil {
		list = append(list, *c.Config)
	}
	return list
}

// elsewhere reports whether a layer may lie outside of the registry: by the image specification, layers that
// must not be distributed.
func elsewhere(d ocispec.Descriptor) bool {
	return len(d.URLs) > 0 || strings.Contains(d.MediaType, ".nondistributable.") || strings.Contains(d.MediaType, ".foreign.")
}

// PutManifest keeps a manifest under its digest and under the tags. It returns the digest of its subject, if it
// has one. With sparse it need not be whole: a cache fetches what is asked for.
func (s *Store) PutManifest(name string, tags []string, m Manifest, sparse bool) (subject digest.Digest, err error) {
	c, err := parse(m.MediaType, m.Content)
	if err != nil {
		return "", err
	}
	s.using.RLock()
	defer s.using.RUnlock()
	if !sparse {
		if err := s.whole(name, m.MediaType, c); err != nil {
			return "", err
		}
	}
	if err := s.put(s.blobPath(m.Digest), m.Content); err != nil {
		return "", err
	}
	if err := s.put(s.link(name, "_manifests", m.Digest), []byte(m.MediaType)); err != nil {
		return "", err
	}
	if c.Subject != nil {
		subject = c.Subject.Digest
		if err := s.refer(name, subject, m, c); err != nil {
			return "", err
		}
	}
	for _, tag := range tags {
		if err := s.put(s.repository(name, "_tags", tag), []byte(m.Digest)); err != nil {
			return subject, err
		}
	}
	return subject, nil
}

// whole checks that the repository has what a manifest names.
func (s *Store) whole(name, mediaType string, c contents) error {
	for _, d := range c.references() {
		there := s.HasBlob
		if isIndex(mediaType) {
			there = s.hasManifest
		} else if elsewhere(d) {
			continue
		}
		if !there(name, d.Digest) {
			return &InvalidError{Reason: fmt.Sprintf("%s is unknown in %s", d.Digest, name), Missing: d.Digest}
		}
	}
	return nil
}

func (s *Store) hasManifest(name string, d digest.Digest) bool {
	_, err := os.Stat(s.link(name, "_manifests", d))
	return err == nil
}

// Resolve returns the digest of a tag.
func (s *Store) Resolve(name, tag string) (digest.Digest, error) {
	data, err := os.ReadFile(s.repository(name, "_tags", tag))
	if err != nil {
		return "", missing(err, ErrManifestUnknown)
	}
	d, err := digest.Parse(string(data))
	if err != nil {
		return "", fmt.Errorf("tag %s:%s: %w", name, tag, err)
	}
	return d, nil
}

// Manifest returns a manifest by its digest.
func (s *Store) Manifest(name string, d digest.Digest) (Manifest, error) {
	m := Manifest{Digest: d}
	mediaType, err := os.ReadFile(s.link(name, "_manifests", d))
	if err != nil {
		return m, missing(err, ErrManifestUnknown)
	}
	m.MediaType = string(mediaType)
	m.Content, err = os.ReadFile(s.blobPath(d))
	return m, missing(err, ErrManifestUnknown)
}

// Untag removes a tag.
func (s *Store) Untag(name, tag string) error {
	return missing(os.Remove(s.repository(name, "_tags", tag)), ErrManifestUnknown)
}

// DeleteManifest removes a manifest and the tags that name it.
func (s *Store) DeleteManifest(name string, d digest.Digest) error {
	s.using.RLock()
	defer s.using.RUnlock()
	return s.deleteManifest(name, d)
}

func (s *Store) deleteManifest(name string, d digest.Digest) error {
	m, err := s.Manifest(name, d)
	if err != nil {
		return err
	}
	tags, err := s.Tags(name)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if named, err := s.Resolve(name, tag); err == nil && named == d {
			if err := s.Untag(name, tag); err != nil && !errors.Is(err, ErrManifestUnknown) {
				return err
			}
		}
	}
	if c, err := parse(m.MediaType, m.Content); err == nil && c.Subject != nil {
		if err := os.Remove(s.referrer(name, c.Subject.Digest, d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return missing(os.Remove(s.link(name, "_manifests", d)), ErrManifestUnknown)
}

// Tags returns the tags of a repository, sorted.
func (s *Store) Tags(name string) ([]string, error) {
	entries, err := os.ReadDir(s.repository(name, "_tags"))
	if errors.Is(err, fs.ErrNotExist) {
		if s.Known(name) {
			return []string{}, nil
		}
		return nil, ErrNameUnknown
	}
	tags := make([]string, len(entries))
	for i, e := range entries {
		tags[i] = e.Name()
	}
	return tags, err
}

func dashed(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

func (s *Store) referrer(name string, subject, d digest.Digest) string {
	return s.repository(name, "_referrers", dashed(subject), dashed(d))
}

// maxReferrer bounds the descriptor of a referrer; all of a subject are one answer, so that larger annotations are
// left out of it.
const maxReferrer = 16 << 10

// refer keeps the descriptor with which a manifest is listed among the referrers of its subject.
func (s *Store) refer(name string, subject digest.Digest, m Manifest, c contents) error {
	d := ocispec.Descriptor{
		MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Content)),
		ArtifactType: c.ArtifactType, Annotations: c.Annotations,
	}
	if d.ArtifactType == "" && c.Config != nil {
		d.ArtifactType = c.Config.MediaType
	}
	data, err := json.Marshal(d)
	if err == nil && len(data) > maxReferrer {
		d.Annotations = nil
		data, err = json.Marshal(d)
	}
	if err == nil && len(data) > maxReferrer {
		err = refuse("artifactType: %d bytes: expected a media type", len(d.ArtifactType))
	}
	if err != nil {
		return err
	}
	return s.put(s.referrer(name, subject, m.Digest), data)
}

// Referrers returns the descriptors of the manifests that have the subject, which itself need not be there.
func (s *Store) Referrers(name string, subject digest.Digest) ([]ocispec.Descriptor, error) {
	dir := s.repository(name, "_referrers", dashed(subject))
	list := []ocispec.Descriptor{}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		var d ocispec.Descriptor
		if err := json.Unmarshal(data, &d); err != nil {
			return nil, fmt.Errorf("referrer %s of %s: %w", e.Name(), subject, err)
		}
		list = append(list, d)
	}
	return list, nil
}
