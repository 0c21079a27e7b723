package layer

import (
	"context"
	"io"
	"log/slog"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
)

// Layer is an unpacked layer.
type Layer struct {
	ChainID, DiffID, Parent digest.Digest
	Size                    int64
}

// Store keeps layers and snapshots.
type Store struct{}

var errTodo = fault.New(fault.NotImplemented, "layer store: being written")

func Open(root string, logger *slog.Logger) (*Store, error) { return &Store{}, nil }
func (s *Store) Get(chain digest.Digest) (Layer, error)     { return Layer{}, errTodo }
func (s *Store) Unpack(ctx context.Context, parent digest.Digest, r io.Reader) (Layer, error) {
	return Layer{}, errTodo
}
func (s *Store) Prepare(ctx context.Context, key string, chain digest.Digest) ([]mount.Mount, error) {
	return nil, errTodo
}
func (s *Store) Mounts(ctx context.Context, key string) ([]mount.Mount, error) { return nil, errTodo }
func (s *Store) View(chain digest.Digest) ([]mount.Mount, error)               { return nil, errTodo }
func (s *Store) Remove(ctx context.Context, key string) error                  { return errTodo }
func (s *Store) Diff(ctx context.Context, key string, w io.Writer) error       { return errTodo }
func (s *Store) Usage(ctx context.Context, key string) (int64, error)          { return 0, errTodo }
func (s *Store) Paths(key string) map[string]string                            { return nil }
func (s *Store) Release(ctx context.Context, chain digest.Digest) error        { return errTodo }
func (s *Store) Reconcile(ctx context.Context, keepKeys []string, keepChains []digest.Digest) error {
	return errTodo
}
