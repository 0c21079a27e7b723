package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sampan-project/sampan/tests/scenario"
)

// file is an entry of a layer.
type file struct {
	tar.Header
	content string
}

// stamp is a time with nanoseconds, which only PAX headers have.
var stamp = time.Unix(1600000000, 123456789).UTC()

func dir(name string, mode int64) file {
	return file{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}}
}

func regular(name, content string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content: content}
}

func link(kind byte, name, to string) file {
	return file{Header: tar.Header{Typeflag: kind, Name: name, Linkname: to, Mode: 0o777}}
}

// linked are files that are one; each entry has all that is told of it, as archivers write them.
func linked(first file, names ...string) []file {
	first.ModTime = stamp
	list := []file{first}
	for _, name := range names {
		f := link(tar.TypeLink, name, first.Name)
		f.Mode, f.ModTime = first.Mode, stamp
		list = append(list, f)
	}
	return list
}

// layerTar writes a layer. Entries without a time have the stamp, a second later each.
func layerTar(t *testing.T, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, f := range files {
		h := f.Header
		h.Size, h.Format = int64(len(f.content)), tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = stamp.Add(time.Duration(i) * time.Second)
		}
		if strings.ContainsFunc(h.Name, func(r rune) bool { return r == '\uFFFD' }) {
			h.Format, h.ModTime = tar.FormatGNU, h.ModTime.Truncate(time.Second) // PAX is UTF-8
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%q: %v", h.Name, err)
		}
		if _, err := w.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// strange is a layer with everything that a file of an image can be.
func strange(t *testing.T) []byte {
	t.Helper()
	long := strings.Repeat("long-name-", 20)
	xattrs := regular("etc/xattrs", "attributes")
	xattrs.PAXRecords = map[string]string{
		"SCHILY.xattr.user.comment": "a comment", "SCHILY.xattr.user.binary": "\x01\x02\xff",
		// cap_net_raw=ep, capabilities(7), VFS_CAP_REVISION_2
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	}
	setuid := regular("bin/setuid", "#!/bin/sh\n")
	setuid.Mode, setuid.Uid, setuid.Gid = 0o6755, 12, 34
	owned := regular("home/owned", "mine")
	owned.Mode, owned.Uid, owned.Gid = 0o400, 1000, 4000000000
	sticky := dir("tmp", 0o1777)
	group := dir("srv", 0o2775)
	group.Gid = 50
	device := file{Header: tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}}
	disk := file{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "dev/disk", Mode: 0o660, Gid: 6, Devmajor: 259, Devminor: 70000}}
	files := []file{
		dir(".", 0o755), dir("bin", 0o755), dir("dev", 0o755), dir("etc", 0o755), dir("home", 0o711), dir("opaque", 0o755), dir("opaque/deep", 0o700), group, sticky,
		xattrs, setuid, owned, device, disk,
		{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "dev/fifo", Mode: 0o620}},
		link(tar.TypeSymlink, "etc/dangling", "../no/where"),
		regular("srv/in-group", "its group is its own"),
		regular("etc/empty", ""), regular("etc/"+long, long), dir("etc/"+long+"d", 0o755), regular("etc/"+long+"d/"+long, "deep"),
		regular("etc/ünïcödé", "letters"), regular("etc/latin-\xe9\xff", "not UTF-8"), regular("etc/ \t\n", "white"),
		regular("etc/holes", strings.Repeat("\x00", 1<<20)+"end"),
		regular("opaque/lower", "hidden"), regular("opaque/deep/lower", "hidden too"), regular("etc/gone", "removed above"),
		dir("etc/dir-gone", 0o755), regular("etc/dir-gone/file", "removed above"), regular("etc/becomes-dir", "file"), dir("etc/becomes-file", 0o755),
		regular("etc/becomes-file/in", "x"), dir("etc/same", 0o700), regular("etc/same/lower", "stays"),
	}
	files = append(files, linked(regular("etc/first", "shared"), "etc/second", "home/third")...)
	return layerTar(t, append(files, linked(link(tar.TypeSymlink, "etc/absolute", "/etc/first"), "etc/of-a-link")...)...)
}

// above is a layer that changes what strange made.
func above(t *testing.T) []byte {
	t.Helper()
	same := dir("etc/same", 0o750)
	same.Uid = 7
	return layerTar(t,
		dir("etc", 0o750), regular("etc/.wh.gone", ""), regular("etc/.wh.dir-gone", ""),
		dir("opaque", 0o700), regular("opaque/.wh..wh..opq", ""), regular("opaque/upper", "seen"),
		regular("etc/.wh.becomes-dir", ""), dir("etc/becomes-dir", 0o755), regular("etc/becomes-dir/in", "y"),
		regular("etc/becomes-file", "file now"), same, regular("etc/same/upper", "added"),
		regular("etc/first", "no longer shared"))
}

// across is a layer with a hard link to a file of the one below.
func across(t *testing.T) []byte {
	t.Helper()
	return layerTar(t, dir("etc", 0o755), link(tar.TypeLink, "etc/borrowed", "etc/xattrs"))
}

// image makes an image of plain layers.
func image(t *testing.T, layers ...[]byte) v1.Image {
	t.Helper()
	made := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for i, data := range layers {
		var err error
		made, err = mutate.Append(made, mutate.Addendum{Layer: static.NewLayer(data, types.OCIUncompressedLayer), History: v1.History{CreatedBy: fmt.Sprint("layer ", i)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	config, err := made.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", runtime.GOARCH, v1.Time{Time: stamp.Truncate(time.Second)}
	config.Config = v1.Config{Cmd: []string{"/bin/sh"}, Env: []string{"A=b"}}
	if made, err = mutate.ConfigFile(made, config); err != nil {
		t.Fatal(err)
	}
	return made
}

// gzipped makes an image of layers that are packed.
func gzipped(t *testing.T, layers ...[]byte) v1.Image {
	t.Helper()
	made := image(t)
	for _, data := range layers {
		packed, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, tarball.WithMediaType(types.OCILayer))
		if err == nil {
			made, err = mutate.AppendLayers(made, packed)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return made
}

// publish writes an image to a registry and returns its digest.
func publish(t *testing.T, ref string, made v1.Image) string {
	t.Helper()
	tag, err := name.NewTag(ref, name.Insecure)
	if err == nil {
		err = remote.Write(tag, made)
	}
	if err != nil {
		t.Fatal(err)
	}
	digest, err := made.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// busybox is the scenarios' busybox as a layer.
func busybox(t *testing.T) []byte {
	t.Helper()
	data, err := scenario.BusyboxRootfs()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// debian is a tree that mmdebstrap made, where it was made.
func debian(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(scenario.Programs(t)), "build", "fixtures", "debian.tar"))
	if err != nil {
		t.Skip("make fixtures has not made the Debian tree")
	}
	return data
}
