package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/wire"
)

// downloads is how many layers are fetched at once, as Docker's max-concurrent-downloads.
const downloads = 3

// SetDownloads changes how many layers each pull fetches at once from now on; 0 is the default.
func (s *Store) SetDownloads(n int) { s.downloads.Store(int32(n)) }

// Pull fetches an image from its registry. platform is "" for the host's; auth may be nil. progress is
// told in Docker's words.
func (s *Store) Pull(ctx context.Context, ref, platform string, auth *wire.AuthConfig, progress func(wire.Message)) error {
	named, err := parseName(ref)
	if err != nil {
		return err
	}
	named = reference.TagNameOnly(named)
	report, status := newReporter(progress), "Image is up to date"
	newer, err := s.pull(ctx, named, platform, auth, report)
	if err != nil {
		return err
	}
	if newer {
		status = "Downloaded newer image"
	}
	report.say(wire.Message{Status: "Status: " + status + " for " + reference.FamiliarString(named)})
	return nil
}

// pull fetches the image of a complete reference; newer is whether the name stood for no image, or
// another.
func (s *Store) pull(ctx context.Context, named reference.Named, platform string, auth *wire.AuthConfig, report *reporter) (newer bool, err error) {
	var want ocispec.Platform
	if platform != "" {
		if want, err = registry.ParsePlatform(platform); err != nil {
			return false, err
		}
	}
	if s.o.Registry == nil {
		return false, fault.New(fault.NotImplemented, "pull %s: this store has no registry client", named)
	}
	remote, err := s.o.Registry.Resolve(ctx, named.String(), want, auth)
	if err != nil {
		return false, err
	}
	trusted, err := s.admit(ctx, named, remote, auth)
	if err != nil {
		return false, err
	}
	report.say(wire.Message{Status: "Pulling from " + reference.Path(named), ID: identifier(named)})
	l := s.lease()
	defer l.end()
	name := reference.FamiliarString(named)
	if err := checkMediaTypes(remote.Manifest); err != nil {
		return false, fmt.Errorf("pull %s: %w", name, err)
	}
	if artifactType(remote.Manifest) != "" {
		return s.pullArtifact(ctx, l, named, remote, trusted, report)
	}
	d, err := s.fetch(ctx, l, remote)
	if err != nil {
		return false, fmt.Errorf("pull %s: %w", name, err)
	}
	if have := d.platform; platform != "" && registry.Runs(want, have) == 0 {
		return false, fault.New(fault.NotFound, "image with reference %s was found but does not match the specified platform: wanted %s, actual: %s",
			name, registry.PlatformString(want), registry.PlatformString(have))
	}
	d.auth = auth
	if err := s.fetchLayers(ctx, l, remote, d, report); err != nil {
		return false, fmt.Errorf("pull %s: %w", name, err)
	}
	if _, digested := named.(reference.Digested); !digested {
		d.tags = []string{named.String()}
	}
	d.digests = []string{remote.Name + "@" + remote.Digest.String()}
	d.signatures = trusted.signatures
	before := s.byName(named)
	e, err := s.add(ctx, l, d)
	if err != nil {
		return false, fmt.Errorf("pull %s: %w", name, err)
	}
	if err := s.accept(trusted, remote.Digest); err != nil {
		return false, fmt.Errorf("pull %s: %w", name, err)
	}
	s.followShown()
	s.learn(remote, &d)
	report.say(wire.Message{Status: "Digest: " + remote.Digest.String()})
	s.tell("pull", e, name, reference.FamiliarName(named))
	return before == nil || before.record.ID != e.record.ID, nil
}

// maxTags bounds a pull of all tags.
const maxTags = 10_000

// PullAll fetches every tag of a repository.
func (s *Store) PullAll(ctx context.Context, repository, platform string, auth *wire.AuthConfig, progress func(wire.Message)) error {
	named, err := parseName(repository)
	if err != nil {
		return err
	}
	if !reference.IsNameOnly(named) {
		return fault.New(fault.Invalid, "tag can't be used with --all-tags/-a")
	}
	if s.o.Registry == nil {
		return fault.New(fault.NotImplemented, "pull %s: this store has no registry client", repository)
	}
	tags, err := s.o.Registry.Tags(ctx, named.Name(), maxTags, auth)
	if err != nil {
		return err
	}
	report, name, status := newReporter(progress), reference.FamiliarName(named), "Image is up to date"
	for _, tag := range tags {
		tagged, err := reference.WithTag(named, tag)
		if err != nil {
			return fault.New(fault.Invalid, "pull %s: the registry has a tag %q: %w", name, tag, err)
		}
		newer, err := s.pull(ctx, tagged, platform, auth, report)
		if err != nil {
			return err
		}
		if newer {
			status = "Downloaded newer image"
		}
	}
	report.say(wire.Message{Status: "Status: " + status + " for " + name})
	return nil
}

// identifier is the tag or digest of a complete reference.
func identifier(named reference.Named) string {
	if d, ok := named.(reference.Digested); ok {
		return d.Digest().String()
	}
	return named.(reference.Tagged).Tag()
}

// fetch reads the configuration of a remote image.
func (s *Store) fetch(ctx context.Context, l *lease, remote *registry.Image) (draft, error) {
	m := remote.Manifest
	d := draft{manifest: remote.Raw, kind: remote.Descriptor.MediaType, layers: m.Layers}
	l.blob(m.Config.Digest)
	raw, err := remote.ReadBlob(ctx, m.Config, maxConfig)
	if err != nil {
		return d, err
	}
	config, _, err := parseConfig(raw)
	if err != nil {
		return d, err
	}
	d.config, d.diffs, d.platform = raw, config.RootFS.DiffIDs, config.Platform
	return d, checkLayers(len(d.diffs), len(d.layers))
}

// fetchLayers brings the layers of a remote image into the stores.
func (s *Store) fetchLayers(ctx context.Context, l *lease, remote *registry.Image, d draft, report *reporter) error {
	if s.byID(remote.Manifest.Config.Digest) != nil {
		report = newReporter(nil) // the image is there: nothing is to be told of its layers
	}
	here := make([]bool, len(d.layers))
	for i, chain := range layer.ChainOf(d.diffs) {
		blob := d.layers[i].Digest
		l.blob(blob)
		_, err := s.o.Layers.Get(chain)
		if here[i] = err == nil && s.o.Content.Has(blob); !here[i] {
			report.state(short(blob), "Pulling fs layer")
		}
	}
	err := s.fetchEach(ctx, l, remote, d, here, report, false)
	if errors.Is(err, layer.ErrShownBelow) {
		err = s.fetchEach(ctx, l, remote, d, here, report, true)
	}
	return err
}

// fetchEach fetches each layer; with whole none is shown before it is there, and those that are shown are unpacked.
func (s *Store) fetchEach(ctx context.Context, l *lease, remote *registry.Image, d draft, here []bool, report *reporter, whole bool) error {
	f := fetcher{s: s, remote: remote, report: report}
	return s.unpack(ctx, l, d.diffs, int(cmp.Or(s.downloads.Load(), downloads)), func(ctx context.Context, i int, there bool) (*layer.Staged, error) {
		if there && s.o.Layers.IsShown(d.source(remote, i).Chain) && (whole || s.doubted(remote, &d, i)) {
			return f.layer(ctx, d.layers[i], false)
		}
		if !whole {
			if staged, ok := s.show(ctx, &d, remote, i, there); ok {
				return staged, nil
			}
		}
		return f.layer(ctx, d.layers[i], there)
	}, func(i int) {
		if !here[i] {
			report.state(short(d.layers[i].Digest), "Pull complete")
		}
	})
}

// Distribution tells what a registry has under a name.
func (s *Store) Distribution(ctx context.Context, ref string, auth *wire.AuthConfig) (wire.DistributionInspect, error) {
	return s.o.Registry.Distribution(ctx, ref, auth)
}

// Login checks a login with a registry.
func (s *Store) Login(ctx context.Context, auth wire.AuthConfig) (wire.AuthResponse, error) {
	return s.o.Registry.Login(ctx, auth)
}

// Push uploads an image under its name; a name without a tag is all tags of the repository.
func (s *Store) Push(ctx context.Context, ref string, auth *wire.AuthConfig, progress func(wire.Message)) error {
	named, err := parseName(ref)
	if err != nil {
		return err
	}
	if _, ok := named.(reference.Digested); ok {
		return fault.New(fault.Invalid, "cannot push a digest reference")
	}
	report := newReporter(progress)
	report.say(wire.Message{Status: "The push refers to repository [" + named.Name() + "]"})
	tags := []string{named.String()}
	if reference.IsNameOnly(named) {
		tags = s.tagsOf(named.Name())
	}
	for _, tag := range tags {
		if s.tagged(tag) == nil {
			tags = nil
		}
	}
	if len(tags) == 0 {
		return fault.New(fault.NotFound, "An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	for _, tag := range tags {
		if err := s.pushName(ctx, tag, auth, report); err != nil {
			return err
		}
		s.tell("push", s.tagged(tag), familiarString(tag), reference.FamiliarName(named))
	}
	return nil
}

func (s *Store) push(ctx context.Context, tag string, auth *wire.AuthConfig, report *reporter) error {
	l := s.lease()
	defer l.end()
	find := func() (*entry, error) {
		if e := s.tagged(tag); e != nil {
			return e, nil
		}
		return nil, fault.New(fault.NotFound, "An image does not exist locally with the tag: %s", familiarString(tag))
	}
	e, raw, err := s.leased(l, find)
	var plain []layerRecord
	if err == nil && e.packable() {
		plain = e.Layers
		if err = s.packLayers(ctx, l, e, raw, report); err == nil {
			e, raw, err = s.leased(l, find)
		}
	}
	if err != nil {
		return err
	}
	if err := s.whole(ctx, e); err != nil {
		return err
	}
	d, err := s.o.Registry.Push(ctx, tag, registry.PushRequest{Raw: raw, MediaType: e.Manifest.MediaType, Blobs: s.o.Content, Sources: s.repositoriesOf}, auth, sayDiffs(report.say, plain, e))
	if err != nil {
		return err
	}
	s.change.Lock()
	defer s.change.Unlock()
	now := s.byID(e.record.ID)
	if now == nil {
		return nil // removed while it was pushed
	}
	_, err = s.rename(now.record, nil, []string{repository(tag) + "@" + d.Digest.String()})
	return err
}

// repositoriesOf returns the repositories from which, or to which, images with a blob came.
func (s *Store) repositoriesOf(d digest.Digest) (list []string) {
	for _, e := range s.all() {
		if len(e.record.Digests) > 0 && slices.Contains(e.blobs(), d) {
			for _, name := range e.record.Digests {
				list = include(list, repository(name))
			}
		}
	}
	return list
}

// leased finds an image, keeps its blobs, and returns its manifest.
func (s *Store) leased(l *lease, find func() (*entry, error)) (*entry, []byte, error) {
	for {
		e, err := find()
		if err != nil {
			return nil, nil, err
		}
		l.blob(e.blobs()...)
		// Found again, because it may have been removed before the lease held.
		if again := s.byID(e.record.ID); again == nil || again.Manifest.Digest != e.Manifest.Digest {
			continue
		}
		raw, err := s.o.Content.ReadAll(e.Manifest.Digest, maxConfig)
		return e, raw, err
	}
}

// tagsOf returns the tags of a repository, "docker.io/library/alpine".
func (s *Store) tagsOf(repo string) []string {
	var list []string
	for _, e := range s.all() {
		for _, t := range e.Tags {
			if repository(t) == repo {
				list = include(list, t)
			}
		}
	}
	return list
}
