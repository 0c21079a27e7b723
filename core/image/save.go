package image

import (
	"archive/tar"
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
)

// saved is one image that is written out, and the names that it is written with.
type saved struct {
	*entry
	tags []string
}

// Save writes images as one tar that is what `docker save` writes and an OCI image layout at once:
// the blobs are there once, and both indexes speak of them. A name without a tag stands for all tags of
// the repository; an ID for the image without a name.
func (s *Store) Save(ctx context.Context, refs []string, w io.Writer) error {
	l := s.lease()
	defer l.end()
	images, err := s.toSave(l, refs)
	if err != nil {
		return err
	}
	out := archiveWriter{w: tar.NewWriter(w), s: s, done: map[digest.Digest]bool{}}
	if err := out.write(ctx, images); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	for _, i := range images {
		s.tell("save", i.entry, i.record.ID.String(), i.record.ID.String())
	}
	return nil
}

// toSave finds the images, each once, in the order of the references.
func (s *Store) toSave(l *lease, refs []string) ([]*saved, error) {
	var list []*saved
	for _, ref := range refs {
		picks, err := s.picks(ref)
		if err != nil {
			return nil, err
		}
		for _, p := range picks {
			e, _, err := s.leased(l, func() (*entry, error) { return s.find(p.ref) })
			if err != nil {
				return nil, err
			}
			i := slices.IndexFunc(list, func(i *saved) bool { return i.record.ID == e.record.ID })
			if i < 0 {
				i = len(list)
				list = append(list, &saved{entry: e})
			}
			if p.tag != "" {
				list[i].tags = include(list[i].tags, p.tag)
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
	done map[digest.Digest]bool
}

// epoch is the time of the files that have none of their own, so that the same images give the same bytes.
var epoch = time.Unix(0, 0)

func (a *archiveWriter) write(ctx context.Context, images []*saved) error {
	for _, dir := range []string{ocispec.ImageBlobsDir + "/", ocispec.ImageBlobsDir + "/sha256/"} {
		if err := a.w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: epoch}); err != nil {
			return err
		}
	}
	items := []archiveItem{}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, i := range images {
		item := archiveItem{Config: blobPath(i.record.ID), RepoTags: familiar(i.tags), Layers: []string{}}
		for _, l := range i.Layers {
			item.Layers = append(item.Layers, blobPath(l.Blob.Digest))
		}
		items = append(items, item)
		index.Manifests = append(index.Manifests, i.descriptors(i.tags)...)
		for _, d := range i.blobs() {
			if err := a.blob(ctx, d); err != nil {
				return err
			}
		}
	}
	for _, f := range []struct {
		name  string
		value any
	}{
		{ocispec.ImageIndexFile, index},
		{"manifest.json", items},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
		{"repositories", repositories(images)},
	} {
		if err := a.json(f.name, f.value); err != nil {
			return err
		}
	}
	return a.w.Close()
}

func blobPath(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// repositories is the index of the oldest readers: repository to tag to the top layer.
func repositories(images []*saved) map[string]map[string]string {
	m := map[string]map[string]string{}
	for _, i := range images {
		for _, t := range familiar(i.tags) {
			if len(i.Layers) == 0 {
				continue
			}
			repo := repository(t)
			if m[repo] == nil {
				m[repo] = map[string]string{}
			}
			m[repo][t[len(repo)+1:]] = i.Layers[len(i.Layers)-1].Blob.Digest.Encoded()
		}
	}
	return m
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
	data = append(data, '\n')
	if err := a.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: epoch}); err != nil {
		return err
	}
	_, err = a.w.Write(data)
	return err
}
