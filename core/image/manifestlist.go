package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// A manifest list is an index in the making (`docker manifest`): it has a name, and the manifests of images
// that lie in a registry, whose platforms can be set right before it is pushed. It is a row, and no blob.

// manifestList is the row of a list.
type manifestList struct {
	Name  string       `json:"name"` // canonical
	Items []listedItem `json:"items"`
}

// listedItem is one image of a list.
type listedItem struct {
	Ref        string             `json:"ref"` // canonical
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Raw        []byte             `json:"raw"` // the manifest
}

const (
	maxListed = 256
	// tab is how Docker indents manifests.
	tab = "\t"
)

func (s *Store) lists() *state.Table[manifestList] {
	return state.NewTable[manifestList](s.o.DB, "manifests")
}

// listName reads the name of a list, "x" is "x:latest".
func listName(ref string) (reference.Named, error) {
	named, err := parseName(ref)
	if err != nil {
		return nil, err
	}
	if _, digested := named.(reference.Digested); digested {
		return nil, &fault.Field{Field: "manifest list", Given: ref, Expected: "a name with a tag, as its digest is not known yet"}
	}
	return reference.TagNameOnly(named), nil
}

// registryFor is the client that reaches the registry of a name.
func (s *Store) registryFor(named reference.Named, insecure bool) (*registry.Client, error) {
	if s.o.Registry == nil {
		return nil, fault.New(fault.NotImplemented, "%s: this store has no registry client", named)
	}
	if insecure {
		return s.o.Registry.Insecurely(reference.Domain(named)), nil
	}
	return s.o.Registry, nil
}

// ManifestCreate begins a list of images, which must be in a registry, or with amend adds them to it.
func (s *Store) ManifestCreate(ctx context.Context, r wire.ManifestCreate, auth *wire.AuthConfig) (string, error) {
	named, err := listName(r.Name)
	if err != nil {
		return "", err
	}
	if len(r.Manifests) == 0 || len(r.Manifests) > maxListed {
		return "", fault.New(fault.Invalid, "manifest list %s: %d manifests: expected 1 to %d", reference.FamiliarString(named), len(r.Manifests), maxListed)
	}
	switch _, err := s.lists().Get(named.String()); {
	case err == nil && !r.Amend:
		return "", fault.New(fault.Conflict, "refusing to amend an existing manifest list with no --amend flag")
	case err != nil && !fault.Is(err, fault.NotFound):
		return "", err
	}
	var items []listedItem
	for _, ref := range r.Manifests {
		item, err := s.listed(ctx, ref, r.Insecure, auth)
		if err != nil {
			return "", err
		}
		items = append(items, item)
	}
	err = s.changeList(named, true, func(l *manifestList) error {
		for _, item := range items {
			l.Items = slices.DeleteFunc(l.Items, func(i listedItem) bool { return i.Ref == item.Ref })
			l.Items = append(l.Items, item)
		}
		if len(l.Items) > maxListed {
			return fault.New(fault.Invalid, "manifest list %s: %d manifests: expected 1 to %d", reference.FamiliarString(named), len(l.Items), maxListed)
		}
		return nil
	})
	return named.String(), err
}

// listed fetches an image's manifest for a list.
func (s *Store) listed(ctx context.Context, ref string, insecure bool, auth *wire.AuthConfig) (listedItem, error) {
	named, err := parseName(ref)
	if err != nil {
		return listedItem{}, err
	}
	client, err := s.registryFor(named, insecure)
	if err != nil {
		return listedItem{}, err
	}
	found, err := client.Manifest(ctx, ref, auth)
	if err != nil {
		return listedItem{}, err
	}
	if found.IsIndex() {
		return listedItem{}, fault.New(fault.Invalid, "%s is a manifest list: expected the manifest of one image", ref)
	}
	return listedItem{Ref: found.Named.String(), Descriptor: found.Descriptor, Raw: found.Raw}, nil
}

// changeList changes the row of a list, in one transaction.
func (s *Store) changeList(named reference.Named, make bool, change func(*manifestList) error) error {
	return s.o.DB.Update(func(tx *state.Tx) error {
		rows := s.lists().In(tx)
		l, err := rows.Get(named.String())
		if fault.Is(err, fault.NotFound) {
			if !make {
				return noSuchList(named)
			}
			l, err = manifestList{Name: named.String()}, nil
		}
		if err != nil {
			return err
		}
		if err := change(&l); err != nil {
			return err
		}
		return rows.Put(named.String(), l)
	})
}

func noSuchList(named reference.Named) error {
	return fault.New(fault.NotFound, "No such manifest: %s", reference.FamiliarString(named))
}

func (s *Store) list(named reference.Named) (manifestList, error) {
	l, err := s.lists().Get(named.String())
	if fault.Is(err, fault.NotFound) {
		err = noSuchList(named)
	}
	return l, err
}

// item finds an image of a list by its name.
func (l *manifestList) item(ref string) (*listedItem, error) {
	named, err := parseName(ref)
	if err != nil {
		return nil, err
	}
	named = reference.TagNameOnly(named)
	for i := range l.Items {
		if l.Items[i].Ref == named.String() {
			return &l.Items[i], nil
		}
	}
	return nil, fault.New(fault.NotFound, "manifest for image %s does not exist in %s", ref, familiarString(l.Name))
}

// ManifestAnnotate says which platform an image of a list is for; what is empty stays.
func (s *Store) ManifestAnnotate(_ context.Context, r wire.ManifestAnnotate) error {
	named, err := listName(r.Name)
	if err != nil {
		return err
	}
	return s.changeList(named, false, func(l *manifestList) error {
		item, err := l.item(r.Manifest)
		if err != nil {
			return err
		}
		p := ocispec.Platform{}
		if item.Descriptor.Platform != nil {
			p = *item.Descriptor.Platform
		}
		for _, field := range []struct {
			to   *string
			from string
		}{{&p.OS, r.Platform.OS}, {&p.Architecture, r.Platform.Architecture}, {&p.Variant, r.Platform.Variant}, {&p.OSVersion, r.Platform.OSVersion}} {
			if field.from != "" {
				*field.to = field.from
			}
		}
		for _, feature := range r.Platform.OSFeatures {
			if !slices.Contains(p.OSFeatures, feature) {
				p.OSFeatures = append(p.OSFeatures, feature)
			}
		}
		if !slices.Contains(listPlatforms, p.OS+"/"+p.Architecture) {
			return fault.New(fault.Invalid, "manifest entry for image has unsupported os/arch combination: %s/%s", p.OS, p.Architecture)
		}
		item.Descriptor.Platform = &p
		return nil
	})
}

// listPlatforms are those that docker manifest annotate takes (docker/cli, cli/command/manifest/util.go), of the ports of Go.
var listPlatforms = []string{
	"darwin/386", "darwin/amd64", "darwin/arm", "darwin/arm64", "dragonfly/amd64", "freebsd/386", "freebsd/amd64", "freebsd/arm",
	"linux/386", "linux/amd64", "linux/arm", "linux/arm64", "linux/mips64", "linux/mips64le", "linux/ppc64le", "linux/riscv64", "linux/s390x",
	"netbsd/386", "netbsd/amd64", "netbsd/arm", "openbsd/386", "openbsd/amd64", "openbsd/arm", "plan9/386", "plan9/amd64",
	"solaris/amd64", "windows/386", "windows/amd64",
}

// index makes the index of a list: Docker's where all manifests are, else the OCI's.
func (l *manifestList) index() (raw []byte, kind string, err error) {
	kind = registry.MediaTypeDockerList
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{}}
	for _, item := range l.Items {
		d := item.Descriptor
		if d.MediaType != registry.MediaTypeDockerManifest {
			kind = ocispec.MediaTypeImageIndex
		}
		if d.Platform == nil || d.Platform.OS == "" || d.Platform.Architecture == "" {
			return nil, "", fault.New(fault.Invalid, "manifest %s must have an OS and Architecture to be pushed to a registry: see manifest annotate", item.Ref)
		}
		index.Manifests = append(index.Manifests, d)
	}
	index.MediaType = kind
	raw, err = json.MarshalIndent(index, "", "   ")
	return raw, kind, err
}

// ManifestPush uploads a list, and with purge forgets it.
func (s *Store) ManifestPush(ctx context.Context, r wire.ManifestPush, auth *wire.AuthConfig) (digest.Digest, error) {
	named, err := listName(r.Name)
	if err != nil {
		return "", err
	}
	l, err := s.list(named)
	if err != nil {
		return "", err
	}
	raw, kind, err := l.index()
	if err != nil {
		return "", err
	}
	var manifests []*registry.Stored
	for _, item := range l.Items {
		from, err := parseName(item.Ref)
		if err != nil {
			return "", err
		}
		manifests = append(manifests, &registry.Stored{Named: from, Descriptor: item.Descriptor, Raw: item.Raw})
	}
	client, err := s.registryFor(named, r.Insecure)
	if err != nil {
		return "", err
	}
	d, err := client.PushList(ctx, named.String(), raw, kind, manifests, auth)
	if err != nil {
		return "", err
	}
	if r.Purge {
		err = s.lists().Delete(named.String())
	}
	return d.Digest, err
}

// ManifestRemove forgets a list.
func (s *Store) ManifestRemove(_ context.Context, name string) error {
	named, err := listName(name)
	if err != nil {
		return err
	}
	return s.o.DB.Update(func(tx *state.Tx) error {
		rows := s.lists().In(tx)
		if _, err := rows.Get(named.String()); err != nil {
			if fault.Is(err, fault.NotFound) {
				return noSuchList(named)
			}
			return err
		}
		return rows.Delete(named.String())
	})
}

// ManifestInspect answers the JSON of a list here, of an image in it, or else of what a registry has.
func (s *Store) ManifestInspect(ctx context.Context, r wire.ManifestInspect, auth *wire.AuthConfig) (json.RawMessage, error) {
	if r.List != "" {
		named, err := listName(r.List)
		if err != nil {
			return nil, err
		}
		l, err := s.list(named)
		if err != nil {
			return nil, err
		}
		item, err := l.item(r.Manifest)
		if err != nil {
			return nil, err
		}
		return item.show(r.Verbose)
	}
	if named, err := listName(r.Manifest); err == nil {
		switch l, err := s.list(named); {
		case err == nil:
			return l.show(r.Verbose)
		case !fault.Is(err, fault.NotFound):
			return nil, err
		}
	}
	return s.inspectRemote(ctx, r, auth)
}

func (s *Store) inspectRemote(ctx context.Context, r wire.ManifestInspect, auth *wire.AuthConfig) (json.RawMessage, error) {
	named, err := parseName(r.Manifest)
	if err != nil {
		return nil, err
	}
	client, err := s.registryFor(named, r.Insecure)
	if err != nil {
		return nil, err
	}
	found, err := client.Manifest(ctx, r.Manifest, auth)
	if err != nil {
		return nil, err
	}
	if !found.IsIndex() {
		item := listedItem{found.Named.String(), found.Descriptor, found.Raw}
		return item.show(r.Verbose)
	}
	if !r.Verbose {
		return indented(found.Raw)
	}
	var index ocispec.Index
	if err := json.Unmarshal(found.Raw, &index); err != nil {
		return nil, fault.New(fault.Invalid, "index %s: %w", found.Descriptor.Digest, err)
	}
	if len(index.Manifests) > maxListed {
		return nil, fault.New(fault.Invalid, "index %s: %d manifests: expected at most %d", found.Descriptor.Digest, len(index.Manifests), maxListed)
	}
	l := manifestList{Name: found.Named.String()}
	for _, d := range index.Manifests {
		ref := found.Named.Name() + "@" + d.Digest.String()
		child, err := client.Manifest(ctx, ref, auth)
		if err != nil {
			return nil, err
		}
		d.MediaType = child.Descriptor.MediaType
		l.Items = append(l.Items, listedItem{found.Named.String() + "@" + d.Digest.String(), d, child.Raw})
	}
	return l.show(true)
}

// show is the JSON of a list: its index, or with verbose all that is known of its images.
func (l *manifestList) show(verbose bool) (json.RawMessage, error) {
	if verbose {
		list := make([]shownManifest, len(l.Items))
		for i := range l.Items {
			list[i] = l.Items[i].shown()
		}
		return json.MarshalIndent(list, "", tab)
	}
	raw, _, err := l.index()
	if err != nil {
		return nil, err
	}
	return indented(raw)
}

func (i *listedItem) show(verbose bool) (json.RawMessage, error) {
	if verbose {
		return json.MarshalIndent(i.shown(), "", tab)
	}
	return indented(i.Raw)
}

// shownManifest is what Docker's `manifest inspect --verbose` shows of an image.
type shownManifest struct {
	Ref              string
	Descriptor       ocispec.Descriptor
	Raw              []byte
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

func (i *listedItem) shown() shownManifest {
	m := shownManifest{Ref: i.Ref, Descriptor: i.Descriptor, Raw: i.Raw}
	if i.Descriptor.MediaType == registry.MediaTypeDockerManifest {
		m.SchemaV2Manifest = i.Raw
	} else {
		m.OCIManifest = i.Raw
	}
	return m
}

func indented(raw []byte) (json.RawMessage, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", tab); err != nil {
		return nil, fmt.Errorf("indent a manifest: %w", err)
	}
	return b.Bytes(), nil
}
