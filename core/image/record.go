package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// record is the row of an image.
type record struct {
	ID       digest.Digest      `json:"id"`       // of the configuration's blob
	Manifest ocispec.Descriptor `json:"manifest"` // names Config and Layers
	Layers   []layerRecord      `json:"layers"`   // lowest first
	Tags     []string           `json:"tags,omitempty"`
	Digests  []string           `json:"digests,omitempty"`
	Others   []string           `json:"others,omitempty"`   // tags that stand also for this platform, see platform.go
	Artifact string             `json:"artifact,omitempty"` // its type, of what is no image, see artifact.go
	Blobs    []digest.Digest    `json:"blobs,omitempty"`    // of an artifact
	Parent   digest.Digest      `json:"parent,omitempty"`
	Tagged   time.Time          `json:"tagged,omitzero"`

	Signatures []wire.Signature `json:"signatures,omitempty"` // those that came with it, see trust.go
	Boot       string           `json:"boot,omitempty"`       // until its files are on disk, see durable.go
}

// layerRecord is one layer of an image: unpacked by its chain ID, and packed as a blob.
type layerRecord struct {
	Chain digest.Digest      `json:"chain"`
	Blob  ocispec.Descriptor `json:"blob"`
}

// maxConfig bounds an image's configuration, and every other JSON of an image. Real ones have some KiB.
const maxConfig = 8 << 20

// dockerConfig is what Docker adds to the OCI image configuration.
type dockerConfig struct {
	Config        *wire.ContainerConfig `json:"config"`
	DockerVersion string                `json:"docker_version"`
	Comment       string                `json:"comment"`
}

// parseConfig reads an image's configuration.
func parseConfig(raw []byte) (ocispec.Image, dockerConfig, error) {
	var config ocispec.Image
	var docker dockerConfig
	if err := json.Unmarshal(raw, &config); err != nil {
		return config, docker, fault.New(fault.Invalid, "image configuration: %w", malformed(err))
	}
	if err := json.Unmarshal(raw, &docker); err != nil {
		return config, docker, fault.New(fault.Invalid, "image configuration: %w", malformed(err))
	}
	return config, docker, checkConfig(&config, &docker)
}

// Bounds of a configuration. Real ones have some dozens of steps, and two short words of a platform.
const (
	maxHistory = 4096
	maxWord    = 64
)

// checkConfig checks what a configuration says, and completes it.
func checkConfig(config *ocispec.Image, docker *dockerConfig) error {
	if t := config.RootFS.Type; t != "layers" && t != "" {
		return fault.New(fault.Invalid, "image configuration: its root filesystem has type %q: expected layers", brief(t))
	}
	if n := len(config.RootFS.DiffIDs); n > layer.MaxLayers {
		return fault.New(fault.Invalid, "image configuration: %d layers: expected at most %d", n, layer.MaxLayers)
	}
	if n := len(config.History); n > maxHistory {
		return fault.New(fault.Invalid, "image configuration: %d steps of history: expected at most %d", n, maxHistory)
	}
	for _, word := range []string{config.OS, config.Architecture, config.Variant} {
		if len(word) > maxWord || !printable(word) {
			return fault.New(fault.Invalid, "image configuration: platform %q: expected words such as linux and amd64", brief(word))
		}
	}
	for _, d := range config.RootFS.DiffIDs {
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
			return fault.New(fault.Invalid, "image configuration: diff ID %q: expected a sha256 digest", brief(d.String()))
		}
	}
	if docker.Config == nil {
		docker.Config = &wire.ContainerConfig{}
	}
	return nil
}

// brief is somebody else's text for an error, which quotes it.
func brief(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// malformed is why JSON could not be read; a time that is none is quoted there as a whole.
func malformed(err error) error { return errors.New(brief(err.Error())) }

// entry reads what belongs to a row.
func (s *Store) entry(r record) (*entry, error) {
	if r.Artifact != "" {
		return s.artifact(r)
	}
	raw, err := s.o.Content.ReadAll(r.ID, maxConfig)
	if err != nil {
		return nil, err
	}
	config, docker, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	e := &entry{record: r, dockerVersion: docker.DockerVersion, configSize: int64(len(raw))}
	e.Image = Image{
		ID: r.ID, Config: config, ContainerConfig: *docker.Config,
		Names: familiar(r.Tags), Digests: familiar(r.Digests), Parent: r.Parent, Comment: docker.Comment,
	}
	if n := len(config.History); e.Comment == "" && n > 0 {
		e.Comment = config.History[n-1].Comment
	}
	for _, l := range r.Layers {
		found, err := s.o.Layers.Get(l.Chain)
		if err != nil {
			return nil, err
		}
		e.Size += found.Size
		e.ChainID = l.Chain
	}
	if gone := s.absent(&r); len(gone) > 0 {
		return nil, fault.New(fault.NotFound, "no blob %s", gone[0])
	}
	return e, nil
}

// blobs returns the digests of all blobs of the image.
func (r *record) blobs() []digest.Digest {
	list := []digest.Digest{r.ID, r.Manifest.Digest}
	for _, l := range r.Layers {
		list = append(list, l.Blob.Digest)
	}
	return append(list, r.Blobs...)
}

// familiar returns canonical references as a person writes them.
func familiar(refs []string) []string {
	list := make([]string, 0, len(refs))
	for _, r := range refs {
		list = append(list, familiarString(r))
	}
	slices.Sort(list)
	return list
}

func familiarString(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarString(named)
}

// put makes an image visible, in the place of its former self. The caller holds change, or is Open.
func (s *Store) put(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.images[e.record.ID]; ok {
		for _, t := range old.Tags {
			if s.tags[t] == e.record.ID {
				delete(s.tags, t)
			}
		}
	}
	s.images[e.record.ID] = e
	delete(s.damaged, e.record.ID)
	for _, t := range e.Tags {
		s.tags[t] = e.record.ID
	}
}

func (s *Store) byID(id digest.Digest) *entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.images[id]
}

// all returns every image, in the order of their IDs.
func (s *Store) all() []*entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]*entry, 0, len(s.images))
	for _, id := range slices.Sorted(maps.Keys(s.images)) {
		list = append(list, s.images[id])
	}
	return list
}

// rename gives an image names and takes them from those that have them, in one transaction. Rows
// that are new come as added. The caller holds change. It returns the entries that lost a name.
func (s *Store) rename(r record, tags, digests []string) (losers []*entry, err error) {
	for _, t := range tags {
		if e := s.tagged(t); e != nil && e.record.ID != r.ID && !slices.Contains(losers, e) {
			losers = append(losers, e)
		}
		r.Tags = include(r.Tags, t)
	}
	for _, d := range digests {
		r.Digests = include(r.Digests, d)
	}
	r = s.inherit(r)
	r, changed := s.share(r, tags)
	if len(tags) > 0 {
		r.Tagged = time.Now().UTC()
	}
	e, err := s.entry(r)
	if err != nil {
		return nil, err
	}
	for _, l := range losers {
		changed = slices.DeleteFunc(changed, func(c *entry) bool {
			if c.record.ID != l.record.ID {
				return false
			}
			l = c
			return true
		})
		changed = append(changed, l.with(lose(l.record, r, tags)))
	}
	changed = append(changed, e)
	if err := s.write(changed); err != nil {
		return nil, err
	}
	return losers, nil
}

// with returns the entry with another row of the same image.
func (e *entry) with(r record) *entry {
	c := *e
	c.record = r
	c.Names, c.Image.Digests = familiar(r.Tags), familiar(r.Digests)
	return &c
}

// write writes the rows of entries and makes them visible. The caller holds change.
func (s *Store) write(list []*entry) error {
	poorer, stale := s.disown(list)
	err := s.o.DB.Update(func(tx *state.Tx) error {
		rows := s.rows.In(tx)
		for _, e := range list {
			if err := rows.Put(e.record.ID.String(), e.record); err != nil {
				return err
			}
		}
		for _, d := range poorer {
			if err := rows.Put(d.ID.String(), d.record); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	s.redamage(poorer)
	for _, e := range list {
		s.put(e)
	}
	s.sweep(stale, nil)
	s.writeIndex()
	return nil
}

func (s *Store) tagged(tag string) *entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, ok := s.tags[tag]
	if !ok {
		return nil
	}
	return s.images[id]
}

// include returns the sorted list with a word in it.
func include(list []string, word string) []string {
	if i, found := slices.BinarySearch(list, word); !found {
		return slices.Insert(slices.Clone(list), i, word)
	}
	return list
}

// writeIndex tells other tools, which read the blobs as an OCI image layout, what images there are.
// The engine itself does not read it: a failure is not one of the operation.
func (s *Store) writeIndex() {
	var list []ocispec.Descriptor
	for _, e := range s.all() {
		list = append(list, e.descriptors(e.Tags)...)
	}
	if err := s.o.Content.SetIndex(list); err != nil {
		s.o.Logger.Warn("write image index", "error", err)
	}
}

// annotationName is where containerd, and Docker after it, put the full name of an image in an index.
const annotationName = "io.containerd.image.name"

// descriptors returns the manifest's descriptor for each of the tags, or once without a name.
func (e *entry) descriptors(tags []string) []ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: e.record.Manifest.MediaType, Digest: e.record.Manifest.Digest, Size: e.record.Manifest.Size}
	if e.Artifact != "" {
		d.ArtifactType = e.Artifact
	} else {
		d.Platform = &ocispec.Platform{OS: e.Image.Config.OS, Architecture: e.Image.Config.Architecture, Variant: e.Image.Config.Variant}
	}
	if len(tags) == 0 {
		return []ocispec.Descriptor{d}
	}
	list := make([]ocispec.Descriptor, len(tags))
	for i, t := range tags {
		list[i] = d
		list[i].Annotations = map[string]string{annotationName: t, ocispec.AnnotationRefName: t[strings.LastIndexByte(t, ':')+1:]}
	}
	return list
}
