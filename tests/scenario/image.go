package scenario

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"

	"os"
	"path/filepath"
)

// fixtureImage is an image of two layers that another program than ours made: busybox, and on top a
// layer with a file, a hard link to it, a whiteout (of /bin/vi) and an opaque directory (/home).
func fixtureImage() (v1.Image, error) {
	base, err := BusyboxRootfs()
	if err != nil {
		return nil, err
	}
	var top bytes.Buffer
	w := tar.NewWriter(&top)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "opt/", Mode: 0o750, Uid: 33, Gid: 33},
		{Typeflag: tar.TypeReg, Name: "opt/greeting", Mode: 0o4711, Uid: 33, Gid: 33, Size: 6},
		{Typeflag: tar.TypeLink, Name: "opt/hard", Linkname: "opt/greeting"},
		{Typeflag: tar.TypeReg, Name: "bin/.wh.vi"},
		{Typeflag: tar.TypeDir, Name: "home/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "home/.wh..wh..opq"},
		{Typeflag: tar.TypeChar, Name: "opt/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
	} {
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, "hello\n"); err != nil {
				return nil, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	image := empty.Image
	for _, b := range [][]byte{base, top.Bytes()} {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return nil, err
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Cmd: []string{"cat", "/opt/greeting"}, Env: []string{"PATH=/bin", "FROM_IMAGE=yes"},
		WorkingDir: "/opt", Labels: map[string]string{"made.by": "fixture"},
	}
	return mutate.ConfigFile(image, config)
}

// archive writes the fixture image: archive docker|oci FILE NAME.
func archive(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: archive docker|oci FILE NAME")
	}
	image, err := fixtureImage()
	ts.Check(err)
	switch file := ts.MkAbs(args[1]); args[0] {
	case "docker":
		tag, err := name.NewTag(args[2])
		ts.Check(err)
		ts.Check(tarball.WriteToFile(file, tag, image))
	case "oci":
		dir := file + ".layout"
		path, err := layout.Write(dir, empty.Index)
		ts.Check(err)
		ts.Check(path.AppendImage(image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": args[2]})))
		ts.Check(tarDirectory(dir, file))
	default:
		ts.Fatalf("archive %s: expected docker or oci", args[0])
	}
}

func tarDirectory(dir, file string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		return err
	}
	return w.Close()
}

// publish pushes the fixture image to the scenario's registry: publish NAME[:TAG].
func publish(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: publish NAME[:TAG]")
	}
	image, err := fixtureImage()
	ts.Check(err)
	ref, err := name.ParseReference(ts.Getenv("REGISTRY")+"/"+args[0], name.Insecure)
	ts.Check(err)
	ts.Check(remote.Write(ref, image))
	digest, err := image.Digest()
	ts.Check(err)
	ts.Setenv("DIGEST", digest.String())
}

// corrupt flips a byte in the middle of the registry's largest blob of more than a kilobyte.
func corrupt(ts *testscript.TestScript, neg bool, args []string) {
	noArguments(ts, "corrupt", neg, args)
	var blob string
	var size int64
	ts.Check(filepath.Walk(filepath.Join(of(ts).root, "registry"), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && strings.HasSuffix(path, "/data") && info.Size() > size {
			blob, size = path, info.Size()
		}
		return err
	}))
	f, err := os.OpenFile(blob, os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, size/2)
	ts.Check(err)
	b[0] ^= 0xff
	_, err = f.WriteAt(b, size/2)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s\n", filepath.Base(filepath.Dir(blob)))
}
