// Package image keeps images: what they are called, the configuration that containers start from,
// and the layers and blobs that they are made of.
//
// An image is named by the digest of its configuration, as in Docker. Its life: Pull, Load, Import or
// Commit bring its blobs into core/content and its layers into core/layer under a lease, and write one
// row to the database; with that row the image exists, and the filesystem is synced once. Tag and Remove
// change rows. What no row and no lease speaks for is removed with the last of them (sweep.go), or,
// after a crash, by Reconcile.
//
//	pull.go load.go import.go commit.go   ways in; each makes a draft, see assemble.go
//	save.go push.go                       ways out
//	reference.go lookup.go                names, digests, short IDs
//	record.go sweep.go                    rows and leases
//	damaged.go                            images that lost some of their files
//	fetch.go claim.go pack.go             layers on the way in, by whom, and on the way out
//	durable.go                            what is on disk, and what may not be
//	list.go inspect.go remove.go prune.go Docker's questions and rules
//	platform.go manifestlist.go           several platforms under one name, and indexes in the making
//	artifact.go                           what registries keep that is no image
//	tree.go mount.go                      looking into images without a container
//	trust.go                              signatures: whose images are let in
package image

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/content"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/lazy"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/trust"
	"github.com/sampan-project/sampan/core/wire"
)

// Options are what a Store is made of.
type Options struct {
	Content  *content.Store
	Layers   *layer.Store
	DB       *state.DB
	Registry *registry.Client
	// Lazy shows layers that are not there yet; nil: every layer is fetched first.
	Lazy   *lazy.Client
	Logger *slog.Logger
	// Trust says which images may be kept and used; nil: all.
	Trust *trust.Gate
	// RunDB keeps what lasts until the machine goes down, and MountRoot is where images are mounted that are
	// given no place; nil and "": they cannot be mounted.
	RunDB     *state.DB
	MountRoot string
	// InUse returns the containers of an image; nil: none.
	InUse func(imageID string) []User
	// Events is told of every change; nil: nobody.
	Events func(action, id string, attrs map[string]string)
}

// User is a container that uses an image.
type User struct {
	ContainerID string
	Running     bool
}

// Store keeps images. Its methods may be called in parallel.
type Store struct {
	o    Options
	rows *state.Table[record]
	// accepted has what signatures let in, by "repository:tag", see trust.go.
	accepted *state.Table[accepted]

	downloads atomic.Int32 // see SetDownloads

	// change is held by whoever changes rows, from reading them to having written them.
	change sync.Mutex

	mu     sync.RWMutex // guards the maps; what they hold is never changed, but replaced
	images map[digest.Digest]*entry
	tags   map[string]digest.Digest // "docker.io/library/alpine:latest" to an image
	blobs  map[digest.Digest]int    // leases, see sweep.go
	chains map[digest.Digest]int

	damaged map[digest.Digest]damaged // see damaged.go

	mounts mounts // see mount.go

	claimed map[digest.Digest]chan struct{} // layers that are being made, see claim.go

	// See durable.go.
	boot       string
	unsynced   map[digest.Digest]uint64 // when they were written, counted by writes
	writes     uint64
	syncing    bool
	background sync.WaitGroup

	// See lazy.go.
	followed  map[digest.Digest]chan struct{} // closed when the layer is unpacked, or given up
	following context.Context                 //nolint:containedctx // of the followers: ends with Close
	unfollow  context.CancelFunc
}

// entry is an image in memory: its row, and what its configuration says.
type entry struct {
	record
	Image
	dockerVersion string
	configSize    int64
}

// Open opens the store. An image whose blobs or layers are not all there is left out, with a warning; its row
// stays (damaged.go).
func Open(o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.InUse == nil {
		o.InUse = func(string) []User { return nil }
	}
	if o.Events == nil {
		o.Events = func(string, string, map[string]string) {}
	}
	s := &Store{
		o: o, rows: state.NewTable[record](o.DB, "images"), accepted: state.NewTable[accepted](o.DB, "trust"),
		images: map[digest.Digest]*entry{}, tags: map[string]digest.Digest{},
		blobs: map[digest.Digest]int{}, chains: map[digest.Digest]int{}, damaged: map[digest.Digest]damaged{}, unsynced: map[digest.Digest]uint64{},
		claimed: map[digest.Digest]chan struct{}{},
	}
	s.followed = map[digest.Digest]chan struct{}{}
	s.following, s.unfollow = context.WithCancel(context.Background())
	if o.Lazy != nil {
		o.Layers.OnRelease(o.Lazy.Close)
	}
	rows, err := s.rows.List()
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if s.boot, err = bootID(); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	var torn []record
	for _, r := range rows {
		if s.mayBeTorn(r) {
			o.Logger.Warn("the machine went down before the image was on disk: pull or load it again", "image", r.ID, "names", r.Tags)
			torn = append(torn, r)
			s.damaged[r.ID] = damaged{record: r, why: "the machine went down before it was on disk", torn: true}
			continue
		}
		e, err := s.entry(r)
		if err != nil {
			o.Logger.Warn("image is damaged and is left out", "image", r.ID, "names", r.Tags, "error", err)
			s.damaged[r.ID] = damaged{record: r, why: err.Error()}
			continue
		}
		s.put(e)
		if r.Boot != "" {
			s.written(r.ID)
		}
	}
	s.distrust(torn)
	if err := s.restoreMounts(); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return s, nil
}

// Image is an image as a container is made from it.
type Image struct {
	ID              digest.Digest
	Config          ocispec.Image
	ContainerConfig wire.ContainerConfig
	ChainID         digest.Digest // of all layers, "" for none
	Names           []string      // "alpine:3.20", sorted
	Digests         []string      // "alpine@sha256:..."
	Size            int64         // bytes of the unpacked layers
	Parent          digest.Digest // the image that it was committed on, when it is known
	Comment         string
}

// clone returns a copy whose lists are the caller's own; configurations are shared and not to be changed.
func (i *Image) clone() *Image {
	c := *i
	c.Names, c.Digests = slices.Clone(i.Names), slices.Clone(i.Digests)
	return &c
}

// created is the time that the image itself tells, zero when it tells none.
func (i *Image) created() time.Time {
	if i.Config.Created == nil {
		return time.Time{}
	}
	return *i.Config.Created
}

// LayersSize returns the bytes of all layers together, those that images share once.
func (s *Store) LayersSize(context.Context) (int64, error) {
	var sum int64
	for _, l := range s.o.Layers.Layers() {
		sum += l.Size
	}
	return sum, nil
}

// Reconcile removes what a crash left in the stores below: snapshots whose key is not in
// keepSnapshots, layers and blobs of no image. It is for the start of the daemon, before anything else
// is asked of the store.
func (s *Store) Reconcile(ctx context.Context, keepSnapshots []string) error {
	blobs, chains := s.referenced()
	if err := s.o.Layers.Reconcile(ctx, keepSnapshots, slices.Collect(maps.Keys(chains))); err != nil {
		return err
	}
	if err := s.o.Content.Reconcile(ctx, func(d digest.Digest) bool { return blobs[d] }); err != nil {
		return err
	}
	s.writeIndex()
	return nil
}

// tell publishes what happened to an image. id is its ID or, with what registries are asked for, its
// name; the attributes are its labels and a name.
func (s *Store) tell(action string, e *entry, id, name string) {
	attributes := map[string]string{}
	if e != nil {
		maps.Copy(attributes, e.ContainerConfig.Labels)
	}
	attributes["name"] = name
	s.o.Events(action, id, attributes)
}
