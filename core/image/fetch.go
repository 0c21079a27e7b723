package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/content"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/registry"
)

// fetcher fetches layers of one image.
type fetcher struct {
	s      *Store
	remote *registry.Image
	report *reporter
}

// layer brings one layer's blob into the content store and, unless the layer is there, unpacks it
// while it comes. What a download that broke off has brought is not asked for again.
func (f *fetcher) layer(ctx context.Context, d ocispec.Descriptor, there bool) (*layer.Staged, error) {
	w, err := f.s.o.Content.Resume(ctx, d)
	if fault.Is(err, fault.Exists) {
		if there {
			f.report.state(short(d.Digest), "Already exists")
			return nil, nil
		}
		bar := f.report.bar(short(d.Digest), "Extracting", d.Size)
		return f.s.stageBlob(ctx, d.Digest, bar.add)
	}
	if err != nil {
		return nil, err
	}
	defer w.Close() //nolint:errcheck // the blob's own errors are Commit's
	resumed := w.Size() > 0
	staged, err := f.download(ctx, w, d, there)
	// What was kept may have been damaged since, as by a machine that went down, and a mirror may send anything.
	for fault.Is(err, fault.Invalid) && (resumed || f.remote.Leave(ctx)) {
		resumed = false
		if err = w.Restart(); err == nil {
			staged, err = f.download(ctx, w, d, there)
		}
	}
	if err != nil && !fault.Is(err, fault.Invalid) && !errors.Is(err, unix.ENOSPC) {
		err = errors.Join(err, w.Suspend())
	}
	return staged, err
}

// download reads the blob, what there is of it first, to its end.
func (f *fetcher) download(ctx context.Context, w *content.Writer, d ocispec.Descriptor, there bool) (*layer.Staged, error) {
	stream, err := f.remote.Rest(ctx, d, w.Size())
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	bar := f.report.bar(short(d.Digest), "Downloading", d.Size)
	in := countingReader{io.MultiReader(w.Earlier(), io.TeeReader(stream, w)), bar.add}
	var staged *layer.Staged
	if !there {
		if staged, err = f.s.stage(ctx, in); err != nil {
			return nil, preferStream(err, in, w, d)
		}
	}
	if err := f.finish(in, w, d); err != nil {
		if staged != nil {
			staged.Discard()
		}
		return nil, err
	}
	return staged, nil
}

// finish reads the stream to its end, verifies it, and adds the blob to the store.
func (f *fetcher) finish(in io.Reader, w *content.Writer, d ocispec.Descriptor) error {
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	f.report.state(short(d.Digest), "Verifying Checksum")
	if err := commitBlob(w, d); err != nil {
		return err
	}
	f.report.state(short(d.Digest), "Download complete")
	return nil
}

// commitBlob has Docker's words for a blob that is not what its digest says.
func commitBlob(w *content.Writer, d ocispec.Descriptor) error {
	_, err := w.Commit()
	if fault.Is(err, fault.Invalid) {
		return fault.New(fault.Invalid, "filesystem layer verification failed for digest %s: its content has %d bytes and digest %s", d.Digest, w.Size(), w.Digest())
	}
	return err
}

// preferStream explains why a layer could not be unpacked. When its bytes are not those that the
// manifest promised, that is the reason, whatever the unpacking stumbled on first.
func preferStream(err error, in io.Reader, w *content.Writer, d ocispec.Descriptor) error {
	if !fault.Is(err, fault.Invalid) {
		return err
	}
	if _, rerr := io.Copy(io.Discard, in); rerr != nil {
		return rerr
	}
	if w.Size() != d.Size || w.Digest() != d.Digest {
		return commitBlob(w, d)
	}
	return fmt.Errorf("layer %s: %w", d.Digest, err)
}
