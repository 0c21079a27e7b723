package lazy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/lazy/toc"
)

// A gzip layer has no table of its own. When it has been pulled, the process makes an index of it (toc.BuildIndex),
// and a later pull of the same blob shows it. Indexes are files with the names of blobs.

// minIndexed is the size from which a layer gets an index: a smaller one is there as soon as a part of it.
const minIndexed = 1 << 20

func (c *Client) indexOf(blob digest.Digest) string {
	return filepath.Join(c.o.Indexes, blob.Encoded())
}

// indexed reports whether a layer is one that an index is for. Its digest becomes a file name.
func indexed(d ocispec.Descriptor) bool {
	return toc.HasIndex(d) && d.Digest.Validate() == nil && d.Digest.Algorithm() == digest.SHA256
}

func (c *Client) hasIndex(d ocispec.Descriptor) bool {
	if !indexed(d) {
		return false
	}
	_, err := os.Stat(c.indexOf(d.Digest))
	return err == nil
}

// Indexable reports whether a layer that has been pulled is to get an index: it has none, and could be shown with one.
func (c *Client) Indexable(s Source) bool {
	return c.able() && indexed(s.Blob) && s.Blob.Size >= minIndexed && !c.hasIndex(s.Blob)
}

// Index makes the index of a layer from its blob, which is at a path, and returns when that is done.
func (c *Client) Index(ctx context.Context, s Source, path string) error {
	if err := c.ensure(ctx); err != nil {
		return err
	}
	defer c.rest()
	return c.call(ctx, VerbIndex, IndexRequest{Blob: s.Blob, DiffID: s.DiffID, From: path, To: c.indexOf(s.Blob.Digest)}, nil)
}

// indexes calls fn with the names of the indexes.
func (c *Client) indexes(fn func(name string) error) error {
	entries, err := os.ReadDir(c.o.Indexes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, fn(e.Name()))
	}
	return err
}

// sweepIndexes removes indexes that an earlier process was writing.
func (c *Client) sweepIndexes() error {
	return c.indexes(func(name string) error {
		if !strings.HasPrefix(name, toc.TemporaryIndex) {
			return nil
		}
		return os.Remove(filepath.Join(c.o.Indexes, name))
	})
}

// ForgetIndexes removes the indexes of blobs that are not to be kept.
func (c *Client) ForgetIndexes(keep func(blob digest.Digest) bool) error {
	return c.indexes(func(name string) error {
		if strings.HasPrefix(name, toc.TemporaryIndex) || keep(digest.NewDigestFromEncoded(digest.SHA256, name)) {
			return nil
		}
		return os.Remove(filepath.Join(c.o.Indexes, name))
	})
}

// DamagedIndexes returns the blobs whose indexes are not what was written.
func (c *Client) DamagedIndexes(ctx context.Context) (list []digest.Digest, err error) {
	err = c.indexes(func(name string) error {
		if ctx.Err() != nil || strings.HasPrefix(name, toc.TemporaryIndex) {
			return ctx.Err()
		}
		err := toc.VerifyIndex(filepath.Join(c.o.Indexes, name))
		switch {
		case fault.Is(err, fault.Invalid):
			list = append(list, digest.NewDigestFromEncoded(digest.SHA256, name))
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("check index %s: %w", name, err)
		}
		return nil
	})
	return list, err
}
