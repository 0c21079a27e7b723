// Package lazy lets containers start from an image whose layers are not there yet: their files are
// shown by a filesystem (FUSE) that fetches what is read. This package is the daemon's side of it.
//
//	toc      the table of contents of a layer, and the tree of files that it describes; indexes of gzip layers
//	zran     gzip from places in its middle, for these
//	cache    the parts of a blob that have come so far, on disk
//	server   the filesystem, and the process that serves all of an exec-root's: cmd/sampan-lazy
//	Client   starts that process when it is needed, and speaks with it; keeps the indexes (index.go)
//
// A container must not notice when the daemon dies, so the filesystems are served by a process of its
// own, which a new daemon finds by its socket. The process gets a registry login in its memory only.
// It fetches each layer as a whole, besides what is read; when all is there the daemon unpacks the
// layer the ordinary way, and gives the mount back (Close). Containers that run on it keep it: the
// kernel lets go of the filesystem with the last of them, and the process ends when it serves none.
//
// What cannot be done this way, for whatever reason, is an error of Open, and the layer is
// fetched and unpacked before anything starts, as always.
package lazy

import (
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/wire"
)

// Version is that of what client and process say to each other.
const Version = 1

// Source is a layer and where it comes from. It is kept with the layer, so that it can be shown again
// after a restart of the machine.
type Source struct {
	Chain  digest.Digest      `json:"chain"` // names it
	DiffID digest.Digest      `json:"diffID"`
	Name   string             `json:"name"` // the repository, "docker.io/library/busybox"
	Blob   ocispec.Descriptor `json:"blob"` // with the annotations of the manifest
	// Attributes are those of directories that the layer does not describe, by path, "." for the root.
	Attributes map[string]Attributes `json:"attributes,omitempty"`
}

// Attributes are what a directory has from the layers below.
type Attributes struct {
	Mode     uint32 // without the type
	UID, GID uint32
	Mtime    time.Time
	Xattrs   map[string]string
}

// OpenRequest asks for a layer's filesystem.
type OpenRequest struct {
	Source
	At    string           `json:"at"`              // where it is mounted
	Cache string           `json:"cache"`           // directory of its own
	Index string           `json:"index,omitempty"` // path, for a layer without a table of its own
	Auth  *wire.AuthConfig `json:"auth,omitempty"`
	// How the registry is reached, as registry.Options.
	Insecure []string            `json:"insecure,omitempty"`
	Mirrors  map[string][]string `json:"mirrors,omitempty"`
}

// Opened is what is known of a layer that is shown.
type Opened struct {
	Size    int64    `json:"size"`              // of its files
	Implied []string `json:"implied,omitempty"` // directories without attributes of their own
}

// IndexRequest asks for an index of a layer, of which the blob is there.
type IndexRequest struct {
	Blob   ocispec.Descriptor `json:"blob"`
	DiffID digest.Digest      `json:"diffID"`
	From   string             `json:"from"` // path of the blob
	To     string             `json:"to"`   // path of the index, in a directory of indexes
}

// SettleRequest gives directories the attributes that they have from below.
type SettleRequest struct {
	Chain      digest.Digest         `json:"chain"`
	Attributes map[string]Attributes `json:"attributes"`
}

// Status is one layer of the process.
type Status struct {
	Chain  digest.Digest `json:"chain"`
	Closed bool          `json:"closed,omitempty"` // only containers that run on it keep it
	Have   int64         `json:"have"`             // bytes of the blob
	Size   int64         `json:"size"`
}

// Hello is what the process says of itself.
type Hello struct {
	Version int `json:"version"`
	Pid     int `json:"pid"`
}

// The verbs, as paths of requests; the body is JSON in both directions, an error protocol.Error with
// status 500.
const (
	VerbHello    = "/hello"
	VerbOpen     = "/open"     // OpenRequest: Opened
	VerbIndex    = "/index"    // IndexRequest
	VerbSettle   = "/settle"   // SettleRequest
	VerbWait     = "/wait"     // Named: Whole, when the blob is whole
	VerbClose    = "/close"    // Named
	VerbList     = "/list"     // []Status
	VerbAlive    = "/alive"    // does not answer while the process lives
	VerbShutdown = "/shutdown" // unmounts all; the process ends when the kernel has let go of them
)

// Named names a layer.
type Named struct {
	Chain digest.Digest `json:"chain"`
}

// Whole is where the blob is.
type Whole struct {
	Path string `json:"path"`
}

// MountOf returns where the layer of a chain is shown, below the directory of the process.
func MountOf(dir string, chain digest.Digest) string {
	return filepath.Join(dir, "layers", chain.Encoded())
}
