package registry

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

const (
	// attempts bounds how often one download goes on after its connection broke without a byte in
	// between, as Docker's max-download-attempts.
	attempts = 5
	// stalled is how long a registry may be silent in the middle of a blob.
	stalled = 60 * time.Second
	// firstWait is how long a download waits before its connection is made again; it doubles each time.
	firstWait = time.Second
)

// Blob opens a blob of the image. The stream ends with io.EOF only when it had the size and the
// digest of the descriptor; a connection that breaks is made again and the rest asked for.
func (i *Image) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "digest %q: %w", d.Digest, err)
	}
	return i.stream(ctx, d, 0, d.Digest.Algorithm().Hash())
}

// Rest is Blob for a caller that has the first bytes of the blob already, or none, and verifies the digest of the
// whole by itself: the stream has the size of what is missing, and its content is not looked at.
func (i *Image) Rest(ctx context.Context, d ocispec.Descriptor, from int64) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "digest %q: %w", d.Digest, err)
	}
	return i.stream(ctx, d, from, nil)
}

func (i *Image) stream(ctx context.Context, d ocispec.Descriptor, from int64, hash hash.Hash) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &blob{
		ctx: ctx, cancel: cancel, image: i, repo: i.repo, want: d, size: from,
		hash: hash, wait: i.repo.wait, place: i.current(),
	}
	if from > 0 && from == d.Size {
		return b, nil // Read finds that nothing is missing
	}
	var err error
	if b.repo, err = i.place(ctx, b.place); err == nil {
		err = b.open()
	}
	if err != nil && (ctx.Err() != nil || !b.elsewhere()) {
		b.shut()
		cancel(nil)
		return nil, pullError(i.repo.named, i.endpointOf(b.place), err)
	}
	return b, nil
}

// ReadBlob returns a blob that is not larger than limit.
func (i *Image) ReadBlob(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fault.New(fault.Invalid, "blob %s: %d bytes: expected at most %d", d.Digest, d.Size, limit)
	}
	r, err := i.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if fault.Is(err, fault.Invalid) {
		if content, ok := i.again(ctx, d, limit); ok {
			return content, nil
		}
	}
	return content, err
}

// blob is a download in progress.
type blob struct {
	ctx    context.Context //nolint:containedctx // of the reads, as with http.Response.Body
	cancel context.CancelCauseFunc
	image  *Image
	repo   *repository // where it comes from
	place  int         // the same, of the image's places
	breaks int         // how often it broke off there
	want   ocispec.Descriptor
	hash   hash.Hash // nil: the content is not looked at
	body   io.ReadCloser
	size   int64
	broken int // how often in a row
	wait   time.Duration
	err    error // what every further read returns
}

var errStalled = errors.New("the registry has sent nothing for too long")

// open asks for the blob from where the stream is.
func (b *blob) open() error {
	header, states := http.Header{}, []int{http.StatusOK}
	if b.size > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", b.size))
		states = append(states, http.StatusPartialContent)
	}
	address := b.repo.url("blobs", b.want.Digest.String())
	ctx := forBlob(b.ctx)
	resp, err := b.repo.do(ctx, http.MethodGet, address, header, states...)
	if answer := (*transport.Error)(nil); b.size > 0 && errors.As(err, &answer) && answer.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		resp, err = b.repo.do(ctx, http.MethodGet, address, nil, http.StatusOK) // it is particular about ranges
	}
	if err != nil {
		return err
	}
	if n := resp.ContentLength; resp.StatusCode == http.StatusOK && n >= 0 && n != b.want.Size {
		resp.Body.Close()
		return fault.New(fault.Invalid, "blob %s: expected %d bytes, the registry has %d", b.want.Digest, b.want.Size, n)
	}
	b.body = resp.Body
	if b.size > 0 && resp.StatusCode == http.StatusOK {
		// The registry knows no ranges and begins anew: what was read before is read over.
		if _, err := io.CopyN(io.Discard, resp.Body, b.size); err != nil {
			return err
		}
	}
	return nil
}

// Read verifies what it hands on, at the end of the stream.
func (b *blob) Read(p []byte) (int, error) {
	for b.err == nil {
		n, err := b.readSome(p)
		if n > 0 || err == nil {
			return n, err
		}
		if errors.Is(err, io.EOF) && b.size >= b.want.Size {
			b.err = b.verify()
			break
		}
		b.err = b.resume(err)
	}
	return 0, b.err
}

// readSome reads once. A silent connection is cut.
func (b *blob) readSome(p []byte) (int, error) {
	if b.size == b.want.Size && b.body == nil {
		return 0, io.EOF
	}
	if b.body == nil {
		return 0, io.ErrUnexpectedEOF
	}
	body := b.body
	watch := time.AfterFunc(b.repo.stalled, func() { body.Close() })
	n, err := body.Read(p)
	if !watch.Stop() && n == 0 {
		err = errStalled
	}
	if n == 0 {
		return 0, err
	}
	b.size += int64(n)
	if b.size > b.want.Size {
		b.err = fault.New(fault.Invalid, "blob %s: expected %d bytes, the registry sends more", b.want.Digest, b.want.Size)
		return 0, b.err
	}
	if b.hash != nil {
		b.hash.Write(p[:n])
	}
	b.broken, b.wait = 0, b.repo.wait
	return n, nil // an error with bytes comes again with the next read
}

func (b *blob) verify() error {
	if b.hash == nil {
		return io.EOF
	}
	if got := digest.NewDigest(b.want.Digest.Algorithm(), b.hash); got != b.want.Digest {
		return fault.New(fault.Invalid, "filesystem layer verification failed for digest %s: its content has digest %s", b.want.Digest, got)
	}
	return io.EOF
}

// resume opens the rest of the blob after cause; nil lets the reading go on.
func (b *blob) resume(cause error) error {
	if b.err != nil {
		return b.err
	}
	b.shut()
	if errors.Is(cause, io.EOF) {
		cause = io.ErrUnexpectedEOF
	}
	for {
		b.breaks++
		b.broken++
		last := b.broken > b.repo.attempts
		// What is behind a mirror may not be there at all: it is not asked each time.
		if b.ctx.Err() == nil && (last || b.breaks == mirrorBreaks || errors.Is(cause, errStalled)) && b.elsewhere() {
			return nil
		}
		if last {
			return fault.New(fault.Unavailable, "blob %s: broke off after %d of %d bytes: %w", b.want.Digest, b.size, b.want.Size, cause)
		}
		select {
		case <-b.ctx.Done():
			return context.Cause(b.ctx)
		case <-time.After(b.wait):
		}
		b.wait *= 2
		err := b.open()
		if err == nil {
			return nil
		}
		b.shut()
		if fault.ClassOf(err) == fault.Invalid {
			if b.ctx.Err() == nil && b.elsewhere() {
				return nil
			}
			return err
		}
		cause = err
	}
}

// shut closes what has broken off.
func (b *blob) shut() {
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
}

// Close ends the download.
func (b *blob) Close() error {
	b.cancel(nil)
	if b.err == nil || errors.Is(b.err, io.EOF) {
		b.err = fault.New(fault.Canceled, "blob %s: the stream is closed", b.want.Digest)
	}
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}
