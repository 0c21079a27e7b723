package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

const (
	// maxFiles bounds the entries of an image archive: some for each layer.
	maxFiles = 1 << 16
	// maxArchive bounds the bytes of all files of an archive together.
	maxArchive = 1 << 39
	// maxText bounds the bytes of all manifests and configurations that are read, and kept in memory until their images
	// are loaded: a manifest.json could name the same large configuration a thousand times.
	maxText = 64 << 20
	// maxLinks bounds how many links lead from one name in an archive to its file.
	maxLinks = 8
)

// spool is an image archive that was read into the content store: its index comes last in most
// archives, so what its files are is known only at the end. Those that no image takes go with the lease.
type spool struct {
	s     *Store
	files map[string]ocispec.Descriptor // by clean path
	links map[string]string
	blobs map[digest.Digest]ocispec.Descriptor
	text  int64 // bytes of JSON that were read
}

// spool reads an archive in any compression.
func (s *Store) spool(ctx context.Context, l *lease, r io.Reader) (*spool, error) {
	in, _, err := decompress(r)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	sp := &spool{s: s, files: map[string]ocispec.Descriptor{}, links: map[string]string{}, blobs: map[digest.Digest]ocispec.Descriptor{}}
	archive := tar.NewReader(in)
	var total int64
	for n := 0; ; n++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) && n > 0 {
			return sp, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fault.New(fault.Invalid, "expected a tar archive of images: %w", err)
		}
		if err != nil {
			return nil, err
		}
		if n >= maxFiles || h.Size > maxArchive-total {
			return nil, fault.New(fault.Invalid, "the archive has more than %d files, or more than %d bytes", maxFiles, int64(maxArchive))
		}
		total += max(h.Size, 0)
		if err := sp.entry(ctx, l, h, archive); err != nil {
			return nil, fmt.Errorf("%q: %w", brief(h.Name), err)
		}
	}
}

func (sp *spool) entry(ctx context.Context, l *lease, h *tar.Header, r io.Reader) error {
	name := path.Clean("/" + h.Name)[1:] // only a key: nothing is written under this name
	switch h.Typeflag {
	case tar.TypeReg:
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") { // a few bytes that stand for a full disk
				return fault.New(fault.Invalid, "it is a sparse file")
			}
		}
		d, err := sp.blob(ctx, l, r)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fault.As(fault.Invalid, err)
		}
		if err != nil {
			return err
		}
		sp.files[name], sp.blobs[d.Digest] = d, d
		delete(sp.links, name)
	case tar.TypeSymlink: // old archives have a layer once, and links to it
		sp.links[name] = path.Join("/", path.Dir(name), h.Linkname)[1:]
	case tar.TypeLink:
		sp.links[name] = path.Join("/", h.Linkname)[1:]
	}
	return nil
}

// blob stores the bytes of a file under the digest that they turn out to have.
func (sp *spool) blob(ctx context.Context, l *lease, r io.Reader) (ocispec.Descriptor, error) {
	w, err := sp.s.o.Content.Writer(ctx, ocispec.Descriptor{})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer w.Close() //nolint:errcheck // the blob's own errors are Commit's
	if _, err := io.Copy(w, contextReader{ctx, r}); err != nil {
		return ocispec.Descriptor{}, err
	}
	l.blob(w.Digest())
	return w.Commit()
}

// contextReader ends a copy when its context ends.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// file finds a file of the archive by its path.
func (sp *spool) file(name string) (ocispec.Descriptor, error) {
	at := path.Clean("/" + name)[1:]
	for range maxLinks {
		if d, ok := sp.files[at]; ok {
			return d, nil
		}
		to, ok := sp.links[at]
		if !ok {
			break
		}
		at = to
	}
	return ocispec.Descriptor{}, fault.New(fault.Invalid, "the archive has no file %q", brief(name))
}

// blobOf finds a blob of the archive by a descriptor, and checks what the descriptor says.
func (sp *spool) blobOf(want ocispec.Descriptor) (ocispec.Descriptor, error) {
	if err := want.Digest.Validate(); err != nil {
		return want, fault.New(fault.Invalid, "digest %q: expected sha256 and 64 hexadecimal digits", brief(want.Digest.String()))
	}
	d, ok := sp.blobs[want.Digest]
	if !ok {
		name := path.Join(ocispec.ImageBlobsDir, want.Digest.Algorithm().String(), want.Digest.Encoded())
		if other, err := sp.file(name); err == nil {
			return want, fault.New(fault.Invalid, "blob %s: content does not match: its digest is %s", want.Digest, other.Digest)
		}
		return want, fault.New(fault.Invalid, "the archive has no blob %s", want.Digest)
	}
	if want.Size != d.Size {
		return want, fault.New(fault.Invalid, "blob %s: expected %d bytes, got %d", want.Digest, want.Size, d.Size)
	}
	d.MediaType = want.MediaType
	return d, nil
}

// decode reads a JSON blob.
func (sp *spool) decode(d digest.Digest, what string, v any) ([]byte, error) {
	raw, err := sp.read(d)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", what, malformed(err))
	}
	return raw, nil
}

// read reads a blob of JSON.
func (sp *spool) read(d digest.Digest) ([]byte, error) {
	raw, err := sp.s.o.Content.ReadAll(d, maxConfig)
	if sp.text += int64(len(raw)); err == nil && sp.text > maxText {
		return nil, fault.New(fault.Invalid, "its manifests and configurations have more than %d bytes", maxText)
	}
	return raw, err
}

// sniff tells the media type of a layer by its first bytes.
func (sp *spool) sniff(d digest.Digest) (string, error) {
	f, err := sp.s.o.Content.Get(d)
	if err != nil {
		return "", err
	}
	defer f.Close()
	begin := make([]byte, 32)
	n, err := io.ReadFull(f, begin)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	kind := detect(begin[:n]).mediaType()
	if kind == "" {
		return "", fault.New(fault.Invalid, "layer %s: expected a tar, plain or compressed by gzip or zstd", d)
	}
	return kind, nil
}

// isIndex reports whether a media type is that of a list of manifests.
func isIndex(kind string) bool {
	return kind == ocispec.MediaTypeImageIndex || strings.HasSuffix(kind, ".manifest.list.v2+json")
}
