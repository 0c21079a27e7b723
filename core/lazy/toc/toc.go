// Package toc reads the table of contents of a layer whose parts can be fetched one by one, and
// makes of it the tree of files that unpacking the layer would make.
//
// Two formats bring such a table, as JSON of nearly the same shape:
//
//	eStargz       a gzip member each for the parts of files, the table in the last but one
//	              (stargz-snapshotter, docs/estargz.md)
//	zstd:chunked  a zstd frame each for the parts of files, the table in a frame that decoders pass
//	              over (containers/storage, docs/containers-storage-zstd-chunked.md)
//
// The digest of the table comes from the manifest's annotations, and the table has a digest of each
// part, so that everything that is served is covered by the manifest's digest. What the table cannot
// say, or what would need the layers below to be decided, is an error: the layer is then unpacked as a
// whole, where a bad one is explained.
//
// For a plain gzip layer there is a third table, made here when the layer was pulled before (build.go), and kept
// in a file (index.go). It has the places at which decompression can begin (core/lazy/zran).
package toc

import (
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

// Annotations of a layer in its manifest.
const (
	// annotationStargz is the digest of the table's JSON, uncompressed.
	annotationStargz = "containerd.io/snapshot/stargz/toc.digest"
	// annotationChecksum is the digest of the compressed table, and annotationPosition where it is:
	// "offset:length:uncompressed length:type". Before either name comes one of prefixes.
	annotationChecksum = "zstd-chunked.manifest-checksum"
	annotationPosition = "zstd-chunked.manifest-position"
)

// prefixes are those of today, and of older writers, such as Debian 12 has.
var prefixes = [...]string{"io.github.containers.", "io.containers."}

// chunked returns the annotation of a layer under one of the prefixes.
func chunked(d ocispec.Descriptor, name string) string {
	for _, p := range prefixes {
		if v := d.Annotations[p+name]; v != "" {
			return v
		}
	}
	return ""
}

// Limits of a table. They are far above those of real layers, and keep a hostile one from taking the
// memory of the process that serves all of them.
const (
	maxPacked  = 64 << 20
	maxTable   = 256 << 20
	maxEntries = 1 << 20
	maxChunk   = 64 << 20 // of one part, packed or not
	// maxAttributes bounds the extended attributes of a file, whose names the kernel gives 64 KiB (xattr(7)).
	maxAttributes = 1 << 10
)

// Has reports whether the descriptor of a layer announces a table.
func Has(d ocispec.Descriptor) bool {
	return compressionOf(d) != none
}

// Compression is how the parts of a layer are compressed.
type Compression int

// The compressions.
const (
	none Compression = iota
	Gzip
	Zstd
	indexed // by a file of ours
)

func compressionOf(d ocispec.Descriptor) Compression {
	switch {
	case chunked(d, annotationChecksum) != "" && strings.Contains(d.MediaType, "zstd"):
		return Zstd
	case d.Annotations[annotationStargz] != "" && strings.HasSuffix(d.MediaType, "gzip"):
		return Gzip
	}
	return none
}

// Read reads the table of the layer that d describes out of its blob, verifies it, and returns its files.
func Read(r io.ReaderAt, d ocispec.Descriptor) (*Tree, error) {
	kind := compressionOf(d)
	var t table
	var err error
	switch kind {
	case Gzip:
		t, err = readStargz(r, d.Size, digest.Digest(d.Annotations[annotationStargz]))
	case Zstd:
		t, err = readChunked(r, d)
	default:
		return nil, fault.New(fault.Invalid, "layer %s announces no table of contents", d.Digest)
	}
	if err != nil {
		return nil, err
	}
	tree, err := t.tree()
	if err != nil {
		return nil, err
	}
	tree.Compression = kind
	return tree, nil
}

// table is what both formats say.
type table struct {
	entries []entry
	end     int64  // where the parts end in the blob
	index   *Index // nil: entries have parts of their own
}

// entry is one entry of a table: the header of a file in the tar, or a further part of the file before.
type entry struct {
	Name        string        `json:"name"`
	Type        string        `json:"type"` // dir reg symlink hardlink char block fifo chunk
	Size        int64         `json:"size,omitempty"`
	ModTime     string        `json:"modtime,omitempty"` // RFC 3339
	LinkName    string        `json:"linkName,omitempty"`
	Mode        int64         `json:"mode,omitempty"`
	UID         int64         `json:"uid,omitempty"`
	GID         int64         `json:"gid,omitempty"`
	DevMajor    int64         `json:"devMajor,omitempty"`
	DevMinor    int64         `json:"devMinor,omitempty"`
	Xattrs      attributes    `json:"xattrs,omitempty"`
	Digest      digest.Digest `json:"digest,omitempty"`
	Offset      int64         `json:"offset,omitempty"` // of the compressed part in the blob
	EndOffset   int64         `json:"endOffset,omitempty"`
	InnerOffset int64         `json:"innerOffset,omitempty"` // in what the part decompresses to
	ChunkOffset int64         `json:"chunkOffset,omitempty"` // in the file
	ChunkSize   int64         `json:"chunkSize,omitempty"`   // 0: to the end of the file
	ChunkDigest digest.Digest `json:"chunkDigest,omitempty"`
}

// bounds returns every place in the blob where a part may begin or end, sorted.
func (t *table) bounds() []int64 {
	list := []int64{t.end}
	for i := range t.entries {
		for _, at := range []int64{t.entries[i].Offset, t.entries[i].EndOffset} {
			if at > 0 && at < t.end {
				list = append(list, at)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
