package image

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/registry"
)

// saved is one image that is written out, the names that it is written with, and by name the images of
// other platforms beside it.
type saved struct {
	*entry
	tags   []string
	beside map[string][]*entry
}

// SaveOptions choose what is saved, and how.
type SaveOptions struct {
	Platform *ocispec.Platform // only this one; nil: all that the names stand for
	OCI      bool              // an OCI image layout and nothing of Docker's beside it
}

// Save writes images as one tar that is what `docker save` writes and an OCI image layout at once:
// the blobs are there once, and both indexes speak of them. A name without a tag stands for all tags of
// the repository; an ID for the image without a name. Where a name stands for several platforms, the layout
// has an index of them, and Docker's part the one that the name stands for first.
func (s *Store) Save(ctx context.Context, refs []string, w io.Writer) error {
	return s.SaveWith(ctx, refs, SaveOptions{}, w)
}

// SaveWith is Save with options.
func (s *Store) SaveWith(ctx context.Context, refs []string, o SaveOptions, w io.Writer) error {
	l := s.lease()
	defer l.end()
	images, err := s.toSave(l, refs, o.Platform)
	if err != nil {
		return err
	}
	for _, i := range images {
		if err := s.whole(ctx, i.entry); err != nil {
			return fmt.Errorf("save: %w", err)
		}
	}
	out := archiveWriter{w: tar.NewWriter(w), s: s, oci: o.OCI, done: map[digest.Digest]bool{}, dirs: map[string]bool{}}
	if err := out.write(ctx, images); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	for _, i := range images {
		s.tell("save", i.entry, i.record.ID.String(), i.record.ID.String())
	}
	return nil
}

// toSave finds the images, each once, in the order of the references.
func (s *Store) toSave(l *lease, refs []string, platform *ocispec.Platform) ([]*saved, error) {
	var list []*saved
	for _, ref := range refs {
		picks, err := s.picks(ref)
		if err != nil {
			return nil, err
		}
		for _, p := range picks {
			e, _, err := s.leased(l, func() (*entry, error) { return s.findFor(p.ref, platform) })
			if err != nil {
				return nil, err
			}
			i := slices.IndexFunc(list, func(i *saved) bool { return i.record.ID == e.record.ID })
			if i < 0 {
				i = len(list)
				list = append(list, &saved{entry: e, beside: map[string][]*entry{}})
			}
			if p.tag == "" {
				continue
			}
			list[i].tags = include(list[i].tags, p.tag)
			if platform == nil {
				list[i].beside[p.tag] = s.others(p.tag)
			}
			for _, o := range list[i].beside[p.tag] {
				if _, _, err := s.leased(l, func() (*entry, error) { return s.find(o.record.ID.String()) }); err != nil {
					return nil, err
				}
			}
		}
	}
	return list, nil
}

// pick is an image to be saved, and the name that it is saved with.
type pick struct{ ref, tag string }

func (s *Store) picks(ref string) ([]pick, error) {
	e, err := s.find(ref)
	if err == nil && e.isID(ref) {
		return []pick{{ref: e.record.ID.String()}}, nil
	}
	named, nerr := parseName(ref)
	switch {
	case nerr != nil:
		return nil, err
	case reference.IsNameOnly(named): // it may have tags, and none of them latest
		var list []pick
		for _, tag := range s.tagsOf(named.Name()) {
			list = append(list, pick{tag, tag})
		}
		if len(list) > 0 {
			err = nil
		}
		return list, err
	case err != nil:
		return nil, err
	}
	if _, digested := named.(reference.Digested); digested {
		return []pick{{ref: named.String()}}, nil
	}
	return []pick{{named.String(), named.String()}}, nil
}

// archiveWriter writes the files of an archive.
type archiveWriter struct {
	w    *tar.Writer
	s    *Store
	oci  bool
	done map[digest.Digest]bool // blobs
	dirs map[string]bool        // of layers, for the oldest readers
}

// epoch is the time of the files that have none of their own, so that the same images give the same bytes.
var epoch = time.Unix(0, 0)

func (a *archiveWriter) write(ctx context.Context, images []*saved) error {
	for _, dir := range []string{ocispec.ImageBlobsDir + "/", ocispec.ImageBlobsDir + "/sha256/"} {
		if err := a.w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: epoch}); err != nil {
			return err
		}
	}
	items, repositories := []archiveItem{}, map[string]map[string]string{}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, i := range images {
		list, err := a.image(ctx, i)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, list...)
		if a.oci || i.Artifact != "" { // Docker's part has no word for an artifact
			continue
		}
		item := archiveItem{Config: blobPath(i.record.ID), RepoTags: familiar(i.tags), Layers: []string{}}
		for _, l := range i.Layers {
			item.Layers = append(item.Layers, blobPath(l.Blob.Digest))
		}
		items = append(items, item)
		top, err := a.legacy(i.entry)
		if err != nil {
			return err
		}
		addRepositories(repositories, i, top)
	}
	for _, f := range []struct {
		name  string
		value any
	}{
		{ocispec.ImageIndexFile, index},
		{"manifest.json", items},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
		{"repositories", repositories},
	} {
		if a.oci && (f.name == "manifest.json" || f.name == "repositories") {
			continue
		}
		if err := a.json(f.name, f.value); err != nil {
			return err
		}
	}
	return a.w.Close()
}

// image writes the blobs of an image and those beside it, and returns what the layout's index says of them.
func (a *archiveWriter) image(ctx context.Context, i *saved) ([]ocispec.Descriptor, error) {
	for _, d := range i.blobs() {
		if err := a.blob(ctx, d); err != nil {
			return nil, err
		}
	}
	list := i.descriptors(i.tags)
	for n, tag := range i.tags {
		others := i.beside[tag]
		if len(others) == 0 {
			continue
		}
		for _, o := range others {
			for _, d := range o.blobs() {
				if err := a.blob(ctx, d); err != nil {
					return nil, err
				}
			}
		}
		raw, err := makeIndex(append(others, i.entry))
		if err != nil {
			return nil, err
		}
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(raw), Size: int64(len(raw)), Annotations: list[n].Annotations}
		if !a.done[d.Digest] {
			a.done[d.Digest] = true
			if err := a.file(blobPath(d.Digest), raw); err != nil {
				return nil, err
			}
		}
		list[n] = d
	}
	return list, nil
}

// makeIndex makes an index of images for several platforms, in the order of their platforms.
func makeIndex(images []*entry) ([]byte, error) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, e := range images {
		index.Manifests = append(index.Manifests, e.descriptors(nil)...)
	}
	slices.SortFunc(index.Manifests, func(a, b ocispec.Descriptor) int {
		return cmp.Or(cmp.Compare(platformOf(a), platformOf(b)), cmp.Compare(a.Digest, b.Digest))
	})
	return json.Marshal(index)
}

func platformOf(d ocispec.Descriptor) string {
	if d.Platform == nil {
		return ""
	}
	return registry.PlatformString(*d.Platform)
}

func blobPath(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// addRepositories adds an image to the index of the oldest readers: repository to tag to the top layer's directory.
func addRepositories(m map[string]map[string]string, i *saved, top string) {
	for _, t := range familiar(i.tags) {
		if top == "" {
			continue
		}
		repo := repository(t)
		if m[repo] == nil {
			m[repo] = map[string]string{}
		}
		m[repo][t[len(repo)+1:]] = top
	}
}

func (a *archiveWriter) blob(ctx context.Context, d digest.Digest) error {
	if a.done[d] {
		return nil
	}
	a.done[d] = true
	size, err := a.s.o.Content.Size(d)
	if err != nil {
		return err
	}
	f, err := a.s.o.Content.Get(d)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := a.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: blobPath(d), Mode: 0o644, Size: size, ModTime: epoch}); err != nil {
		return err
	}
	_, err = io.Copy(a.w, contextReader{ctx, f})
	return err
}

func (a *archiveWriter) json(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.file(name, append(data, '\n'))
}

func (a *archiveWriter) file(name string, data []byte) error {
	if err := a.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: epoch}); err != nil {
		return err
	}
	_, err := a.w.Write(data)
	return err
}
