package content

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/check"
)

// Check looks for ingests that nobody will end. What they were to be is looked after by the owners of
// blobs.
func (s *Store) Check(ctx context.Context) (found []check.Finding, err error) {
	entries, err := os.ReadDir(filepath.Join(s.root, ingestDir))
	if err != nil {
		return nil, fmt.Errorf("check content store: %w", err)
	}
	for _, e := range entries {
		if isPart(e.Name()) {
			continue // it waits to be resumed
		}
		// One that was written since the store was opened is of this process.
		info, err := e.Info()
		if err != nil || !info.ModTime().Before(s.opened) {
			continue
		}
		path := filepath.Join(s.root, ingestDir, e.Name())
		found = append(found, check.Finding{Kind: "blob", Subject: filepath.Join(ingestDir, e.Name()), Problem: "it was begun by an earlier daemon and not ended",
			Did: "removed it", Mend: func(context.Context) error { return os.RemoveAll(path) }})
	}
	return found, nil
}

// Verify reads the blob of d and answers whether it is what its name says.
func (s *Store) Verify(ctx context.Context, d digest.Digest) (bool, error) {
	f, err := s.Get(d)
	if err != nil {
		return false, err
	}
	defer f.Close()
	v := d.Verifier()
	if _, err := io.Copy(v, contextReader{ctx, f}); err != nil {
		return false, fmt.Errorf("read blob %s: %w", d, err)
	}
	return v.Verified(), nil
}
