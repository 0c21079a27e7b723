package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"slices"

	"github.com/klauspost/compress/flate"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sampan-project/sampan/core/wire"
)

// Layers that were made here (commit, build, import) lie plain in the store, so that making them costs no
// compression. They are packed when they leave for a registry for the first time.

const (
	packBlock = 1 << 20
	packLevel = 5
	// packWindow is how far back deflate may refer (RFC 1951, section 2): what a block knows of the one before.
	packWindow = 32 << 10
)

// pack writes r as gzip (RFC 1952). Blocks of one size are compressed at the same time and each ends at a
// byte's border, so that they make one stream, which depends on the content alone and not on the processors.
func pack(ctx context.Context, w io.Writer, r io.Reader) error {
	// No name, no time, made on an unknown system: nothing of this host.
	if _, err := w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	workers := runtime.GOMAXPROCS(0)
	// The order of the blocks is that of the channels, of which some wait for their block.
	order := make(chan chan []byte, workers)
	group, ctx := errgroup.WithContext(ctx)
	sum, size := crc32.NewIEEE(), uint32(0)
	group.Go(func() error {
		defer close(order)
		free := make(chan *flate.Writer, workers+1)
		var window []byte
		for {
			block := make([]byte, packBlock)
			n, err := io.ReadFull(r, block)
			if n > 0 {
				block = block[:n]
				_, _ = sum.Write(block)
				size += uint32(n) // modulo 2^32, as the format has it
				packed, before := make(chan []byte, 1), window
				select {
				case order <- packed:
				case <-ctx.Done():
					return ctx.Err()
				}
				group.Go(func() error {
					data, err := packOne(free, before, block)
					packed <- data
					return err
				})
				window = block[max(0, n-packWindow):]
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	err := func() error {
		for packed := range order {
			if _, err := w.Write(<-packed); err != nil {
				return err
			}
		}
		return nil
	}()
	if err != nil {
		cancel()
		for packed := range order {
			<-packed
		}
	}
	if gerr := group.Wait(); err == nil {
		err = gerr
	}
	if err != nil {
		return err
	}
	end := []byte{1, 0, 0, 0xff, 0xff} // a last block, without content
	end = binary.LittleEndian.AppendUint32(end, sum.Sum32())
	_, err = w.Write(binary.LittleEndian.AppendUint32(end, size))
	return err
}

// packOne compresses one block, with the end of the one before it as what it can refer to.
func packOne(free chan *flate.Writer, before, block []byte) ([]byte, error) {
	var out bytes.Buffer
	var z *flate.Writer
	select {
	case z = <-free:
		z.ResetDict(&out, before)
	default:
		var err error
		if z, err = flate.NewWriterDict(&out, packLevel, before); err != nil {
			return nil, err
		}
	}
	if _, err := z.Write(block); err != nil {
		return nil, err
	}
	if err := z.Flush(); err != nil {
		return nil, err
	}
	select {
	case free <- z:
	default:
	}
	return out.Bytes(), nil
}

// packable reports whether the image has plain layers and nobody knows it by its manifest's digest yet.
func (e *entry) packable() bool {
	return len(e.record.Digests)+len(e.Others)+len(e.Signatures) == 0 && e.Artifact == "" && e.Manifest.MediaType == ocispec.MediaTypeImageManifest &&
		slices.ContainsFunc(e.Layers, func(l layerRecord) bool { return l.Blob.MediaType == ocispec.MediaTypeImageLayer })
}

// packLayers gives an image whose manifest was made here packed layers, and a manifest that names them.
func (s *Store) packLayers(ctx context.Context, l *lease, e *entry, raw []byte, report *reporter) error {
	size, err := s.o.Content.Size(e.record.ID)
	if err != nil {
		return err
	}
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: e.record.ID, Size: size}
	if made, err := makeManifest(config, e.Layers); err != nil || !bytes.Equal(made, raw) {
		return err // it came with an archive, and is to stay what it is
	}
	layers, some := slices.Clone(e.Layers), false
	for i := range layers {
		// A layer that came plain from a registry is there already.
		if layers[i].Blob.MediaType != ocispec.MediaTypeImageLayer || len(s.repositoriesOf(layers[i].Blob.Digest)) > 0 {
			continue
		}
		report.say(wire.Message{ID: short(layers[i].Blob.Digest), Status: "Preparing", ProgressDetail: &wire.Progress{}})
		if layers[i].Blob, err = s.packBlob(ctx, l, layers[i].Blob); err != nil {
			return err
		}
		some = true
	}
	if !some {
		return nil
	}
	if raw, err = makeManifest(config, layers); err != nil {
		return err
	}
	manifest, err := s.putBlob(ctx, l, raw, ocispec.MediaTypeImageManifest)
	if err != nil {
		return err
	}
	s.change.Lock()
	defer s.change.Unlock()
	now := s.byID(e.record.ID)
	if now == nil || now.Manifest.Digest != e.Manifest.Digest {
		return nil // removed, or packed, meanwhile
	}
	r := now.record
	r.Layers, r.Manifest, r.Boot = layers, manifest, s.boot
	if _, err := s.rename(r, nil, nil); err != nil {
		return err
	}
	s.written(r.ID)
	s.sweep(now.blobs(), nil)
	return nil
}

// sayDiffs calls the layers of images by their diff IDs, as docker push does, whatever they are compressed to. Of what
// was plain and is packed since, that it is prepared was said before it was packed.
func sayDiffs(say func(wire.Message), plain []layerRecord, images ...*entry) func(wire.Message) {
	names, said := map[string]string{}, map[string]bool{}
	for _, e := range images {
		for i := range min(len(e.Layers), len(e.Config.RootFS.DiffIDs)) {
			blob := e.Layers[i].Blob.Digest
			names[short(blob)] = short(e.Config.RootFS.DiffIDs[i])
			if i < len(plain) && plain[i].Blob.Digest != blob {
				said[short(blob)] = true
			}
		}
	}
	return func(m wire.Message) {
		if m.Status == "Preparing" && said[m.ID] {
			return
		}
		if name, ok := names[m.ID]; ok {
			m.ID = name
		}
		say(m)
	}
}

func (s *Store) packBlob(ctx context.Context, l *lease, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	in, err := s.o.Content.Get(d.Digest)
	if err != nil {
		return d, err
	}
	defer in.Close()
	w, err := s.o.Content.Writer(ctx, ocispec.Descriptor{})
	if err != nil {
		return d, err
	}
	defer w.Close() //nolint:errcheck // the blob's own errors are Commit's
	if err := pack(ctx, w, in); err != nil {
		return d, err
	}
	l.blob(w.Digest())
	packed, err := w.Commit()
	packed.MediaType = ocispec.MediaTypeImageLayerGzip
	return packed, err
}
