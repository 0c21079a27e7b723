package image

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/content"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// Options are what a Store is made of.
type Options struct {
	Content  *content.Store
	Layers   *layer.Store
	DB       *state.DB
	Registry *registry.Client
	Logger   *slog.Logger
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

// Store keeps images.
type Store struct{ o Options }

// Open opens the store.
func Open(o Options) (*Store, error) { return &Store{o}, nil }

// Image is an image as a container is made from it.
type Image struct {
	ID              digest.Digest
	Config          ocispec.Image
	ContainerConfig wire.ContainerConfig
	ChainID         digest.Digest
	Names           []string
	Digests         []string
	Size            int64
	Parent          digest.Digest
	Comment         string
}

// ListOptions choose images for List.
type ListOptions struct {
	All        bool
	Filters    map[string][]string
	SharedSize bool
}

// CommitRequest describes an image made from a snapshot.
type CommitRequest struct {
	Base        *Image
	SnapshotKey string
	Config      wire.ContainerConfig
	Author      string
	Comment     string
	CreatedBy   string
	Names       []string
	Created     time.Time
}

var errTodo = fault.New(fault.NotImplemented, "image store: being written")

func (s *Store) Get(ctx context.Context, ref string) (*Image, error) { return nil, errTodo }
func (s *Store) List(ctx context.Context, o ListOptions) ([]wire.ImageSummary, error) {
	return nil, errTodo
}
func (s *Store) Inspect(ctx context.Context, ref string) (wire.ImageInspect, error) {
	return wire.ImageInspect{}, errTodo
}
func (s *Store) History(ctx context.Context, ref string) ([]wire.ImageHistory, error) {
	return nil, errTodo
}
func (s *Store) Remove(ctx context.Context, ref string, force, noPrune bool) ([]wire.ImageDelete, error) {
	return nil, errTodo
}
func (s *Store) Tag(ctx context.Context, source, target string) error { return errTodo }
func (s *Store) Pull(ctx context.Context, ref, platform string, auth *wire.AuthConfig, progress func(wire.Message)) error {
	return errTodo
}
func (s *Store) Push(ctx context.Context, ref string, auth *wire.AuthConfig, progress func(wire.Message)) error {
	return errTodo
}
func (s *Store) Load(ctx context.Context, r io.Reader, progress func(wire.Message)) error {
	return errTodo
}
func (s *Store) Import(ctx context.Context, r io.Reader, ref, message string, changes []string, progress func(wire.Message)) (digest.Digest, error) {
	return "", errTodo
}
func (s *Store) Save(ctx context.Context, refs []string, w io.Writer) error  { return errTodo }
func (s *Store) Commit(ctx context.Context, r CommitRequest) (*Image, error) { return nil, errTodo }
func (s *Store) Prune(ctx context.Context, filters map[string][]string) (wire.ImagesPrune, error) {
	return wire.ImagesPrune{}, errTodo
}
func (s *Store) LayersSize(ctx context.Context) (int64, error)               { return 0, errTodo }
func (s *Store) Reconcile(ctx context.Context, keepSnapshots []string) error { return errTodo }

// ParseChange applies one Dockerfile-like instruction.
func ParseChange(c *wire.ContainerConfig, instruction string) error { return errTodo }
