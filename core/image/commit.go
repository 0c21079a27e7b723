package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/wire"
)

// CommitRequest describes an image made from a snapshot.
type CommitRequest struct {
	Base        *Image // nil: scratch
	SnapshotKey string // "": no further layer
	Config      wire.ContainerConfig
	Author      string
	Comment     string
	CreatedBy   string
	Names       []string  // an image without a name can be had by its ID
	Created     time.Time // zero: now
}

// Commit makes an image of another and what a snapshot changed on it.
func (s *Store) Commit(ctx context.Context, r CommitRequest) (*Image, error) {
	tags, err := parseTags(r.Names)
	if err != nil {
		return nil, err
	}
	l := s.lease()
	defer l.end()
	d := draft{tags: tags}
	config := newConfig()
	if r.Base != nil {
		base, _, err := s.leased(l, func() (*entry, error) { return s.find(r.Base.ID.String()) })
		if err != nil {
			return nil, err
		}
		config, d.parent = base.Image.Config, base.record.ID
		d.diffs = slices.Clone(config.RootFS.DiffIDs)
		for _, layer := range base.Layers {
			d.layers = append(d.layers, layer.Blob)
		}
		l.chain(layer.ChainOf(d.diffs)...)
	}
	if r.SnapshotKey != "" {
		err := s.addLayer(ctx, l, &d, func(w io.Writer) error { return s.o.Layers.Diff(ctx, r.SnapshotKey, w) })
		if err != nil {
			return nil, fmt.Errorf("commit: %w", err)
		}
	}
	created, below := orNow(r.Created), len(config.RootFS.DiffIDs)
	config.Created, config.RootFS.DiffIDs = &created, d.diffs
	if r.Author != "" {
		config.Author = r.Author
	}
	config.History = append(slices.Clone(config.History), ocispec.History{
		Created: &created, CreatedBy: r.CreatedBy, Author: r.Author, Comment: r.Comment, EmptyLayer: len(d.diffs) == below,
	})
	if d.config, err = writeConfig(config, &r.Config); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	e, err := s.add(ctx, l, d)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	for _, t := range tags {
		s.tell("tag", e, e.record.ID.String(), familiarString(t))
	}
	return e.Image.clone(), nil
}

// Import makes an image of one layer from the tar of a root filesystem, in any compression. changes are
// Dockerfile instructions for its configuration.
func (s *Store) Import(ctx context.Context, r io.Reader, ref, message string, changes []string, progress func(wire.Message)) (digest.Digest, error) {
	return s.ImportFor(ctx, r, ref, "", message, changes, progress)
}

// ImportFor is Import for a platform such as linux/arm64; "" is the host's.
func (s *Store) ImportFor(ctx context.Context, r io.Reader, ref, platform, message string, changes []string, progress func(wire.Message)) (digest.Digest, error) {
	made := newConfig()
	if platform != "" {
		p, err := registry.ParsePlatform(platform)
		if err != nil {
			return "", err
		}
		made.Platform = p
	}
	tags, err := parseTags([]string{ref})
	if err != nil {
		return "", err
	}
	var c wire.ContainerConfig
	if err := ParseChanges(&c, changes); err != nil {
		return "", err
	}
	l := s.lease()
	defer l.end()
	d := draft{tags: tags}
	in, _, err := decompress(contextReader{ctx, r})
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	defer in.Close()
	bar := newReporter(progress).bar("", "Importing", 0)
	// Whatever it came packed in, the blob is the plain tar: its digest is the diff ID.
	err = s.addLayer(ctx, l, &d, func(w io.Writer) error {
		_, err := io.Copy(w, countingReader{in, bar.add})
		return err
	})
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	config, created := made, time.Now().UTC()
	config.Created, config.RootFS.DiffIDs = &created, d.diffs
	config.History = []ocispec.History{{Created: &created, Comment: message}}
	if d.config, err = writeConfig(config, &c); err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	e, err := s.add(ctx, l, d)
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	for _, t := range tags {
		s.tell("tag", e, e.record.ID.String(), familiarString(t))
	}
	s.tell("import", e, e.record.ID.String(), e.record.ID.String())
	return e.record.ID, nil
}

// emptyLayer is the digest of a tar without entries: two blocks of zeros.
const emptyLayer digest.Digest = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

// addLayer adds a layer to a draft: the tar that write writes is stored as a blob and unpacked in one
// go. One that changes nothing of those below is left out, as Docker does it.
func (s *Store) addLayer(ctx context.Context, l *lease, d *draft, write func(io.Writer) error) error {
	w, err := s.o.Content.Writer(ctx, ocispec.Descriptor{})
	if err != nil {
		return err
	}
	defer w.Close() //nolint:errcheck // the blob's own errors are Commit's
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := write(io.MultiWriter(w, pw))
		pw.CloseWithError(err) // nil is io.EOF
		done <- err
	}()
	staged, err := s.o.Layers.Stage(ctx, pr)
	pr.CloseWithError(errors.New("the layer could not be unpacked"))
	if werr := <-done; err == nil {
		err = werr
	}
	if err != nil {
		if staged != nil {
			staged.Discard()
		}
		return err
	}
	if staged.DiffID == emptyLayer && len(d.diffs) > 0 {
		staged.Discard()
		return nil
	}
	l.blob(w.Digest())
	blob, err := w.Commit()
	if err != nil {
		staged.Discard()
		return err
	}
	blob.MediaType = ocispec.MediaTypeImageLayer
	var parent digest.Digest
	if n := len(d.diffs); n > 0 {
		parent = layer.ChainOf(d.diffs)[n-1]
	}
	l.chain(layer.Chain(parent, staged.DiffID))
	diff := staged.DiffID
	if _, err := staged.Commit(ctx, parent); err != nil {
		return err
	}
	d.diffs, d.layers = append(d.diffs, diff), append(d.layers, blob)
	return nil
}

func newConfig() ocispec.Image {
	c := ocispec.Image{Platform: registry.Host()}
	c.RootFS.Type = "layers"
	return c
}

func orNow(t time.Time) time.Time {
	if t.IsZero() {
		t = time.Now()
	}
	return t.UTC()
}

// imageConfig is the part of a container's configuration that an image keeps: the OCI's and Docker's
// fields, none of them when it is empty, so that equal images have equal digests.
type imageConfig struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	StopTimeout  *int                `json:"StopTimeout,omitempty"`
	Healthcheck  *wire.Healthcheck   `json:"Healthcheck,omitempty"`
	OnBuild      []string            `json:"OnBuild,omitempty"`
	Shell        []string            `json:"Shell,omitempty"`
}

// writeConfig encodes an image's configuration with the container's part in it.
func writeConfig(c ocispec.Image, from *wire.ContainerConfig) ([]byte, error) {
	if c.RootFS.DiffIDs == nil {
		c.RootFS.DiffIDs = []digest.Digest{}
	}
	c.RootFS.Type = "layers"
	c.Config = ocispec.ImageConfig{}
	outer := struct {
		ocispec.Image
		Config imageConfig `json:"config"`
	}{c, imageConfig{
		User: from.User, ExposedPorts: from.ExposedPorts, Env: from.Env, Entrypoint: from.Entrypoint, Cmd: from.Cmd,
		Volumes: from.Volumes, WorkingDir: from.WorkingDir, Labels: from.Labels, StopSignal: from.StopSignal,
		StopTimeout: from.StopTimeout, Healthcheck: from.Healthcheck, OnBuild: from.OnBuild, Shell: from.Shell,
	}}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(outer); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}
