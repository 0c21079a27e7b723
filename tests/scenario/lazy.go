package scenario

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
)

// The lazy image has busybox, and a layer with files of half a megabyte that do not compress, a file
// of every kind, a whiteout and an opaque directory.
const (
	lazyFiles = 40
	lazySize  = 512 << 10
)

func lazyLayer() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	random := rand.New(rand.NewPCG(1, 2))
	when := time.Unix(1_700_000_000, 0)
	put := func(h tar.Header, content []byte) {
		h.Size, h.ModTime, h.Format = int64(len(content)), when, tar.FormatPAX
		w.WriteHeader(&h) //nolint:errcheck // into memory
		w.Write(content)  //nolint:errcheck // into memory
	}
	put(tar.Header{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o1755, Uid: 5, Gid: 6}, nil)
	for i := range lazyFiles {
		content := make([]byte, lazySize)
		for j := range content {
			content[j] = byte(random.Uint32())
		}
		put(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("data/%d", i), Mode: 0o640}, content)
	}
	put(tar.Header{Typeflag: tar.TypeReg, Name: "data/set", Mode: 0o4755, Uid: 7, PAXRecords: map[string]string{"SCHILY.xattr.user.color": "red"}}, []byte("#!/bin/sh\necho set\n"))
	put(tar.Header{Typeflag: tar.TypeReg, Name: "data/empty", Mode: 0o400}, nil)
	put(tar.Header{Typeflag: tar.TypeLink, Name: "data/hard", Linkname: "data/set"}, nil)
	put(tar.Header{Typeflag: tar.TypeSymlink, Name: "data/soft", Linkname: "../bin/busybox", Mode: 0o777}, nil)
	put(tar.Header{Typeflag: tar.TypeChar, Name: "data/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, nil)
	put(tar.Header{Typeflag: tar.TypeFifo, Name: "data/fifo", Mode: 0o600}, nil)
	put(tar.Header{Typeflag: tar.TypeReg, Name: "bin/.wh.vi"}, nil)
	put(tar.Header{Typeflag: tar.TypeDir, Name: "home/", Mode: 0o755}, nil)
	put(tar.Header{Typeflag: tar.TypeReg, Name: "home/.wh..wh..opq"}, nil)
	w.Close() //nolint:errcheck // into memory
	return b.Bytes()
}

// stargz pushes the lazy image as eStargz to the scenario's registry: stargz NAME[:TAG], or with -gzip as plain gzip. With
// -layout DIR it writes an OCI image layout whose layers are not compressed, for others to compress: its image is lazy.
func stargz(ts *testscript.TestScript, neg bool, args []string) {
	plain, zipped := len(args) == 2 && args[0] == "-layout", len(args) == 2 && args[0] == "-gzip"
	if neg || !plain && !zipped && len(args) != 1 {
		ts.Fatalf("usage: stargz [-gzip] NAME[:TAG] | stargz -layout DIR")
	}
	pack := stargzLayer
	switch {
	case plain:
		pack = func(archive []byte) (mutate.Addendum, error) {
			return mutate.Addendum{Layer: static.NewLayer(archive, types.OCIUncompressedLayer), MediaType: types.OCIUncompressedLayer}, nil
		}
	case zipped:
		pack = func(archive []byte) (mutate.Addendum, error) {
			l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil }, tarball.WithMediaType(types.OCILayer))
			return mutate.Addendum{Layer: l, MediaType: types.OCILayer}, err
		}
	}
	image, err := lazyImage(pack)
	ts.Check(err)
	if plain {
		path, err := layout.Write(ts.MkAbs(args[1]), empty.Index)
		ts.Check(err)
		ts.Check(path.AppendImage(image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "lazy"})))
		return
	}
	ref, err := name.ParseReference(ts.Getenv("REGISTRY")+"/"+args[len(args)-1], name.Insecure)
	ts.Check(err)
	ts.Check(remote.Write(ref, image))
}

// Stargz returns the lazy image as eStargz.
func Stargz() (v1.Image, error) { return lazyImage(stargzLayer) }

func lazyImage(pack func(archive []byte) (mutate.Addendum, error)) (v1.Image, error) {
	base, err := BusyboxRootfs()
	if err != nil {
		return nil, err
	}
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}},
	})
	if err != nil {
		return nil, err
	}
	image = mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, archive := range [][]byte{base, lazyLayer()} {
		layer, err := pack(archive)
		if err != nil {
			return nil, err
		}
		if image, err = mutate.Append(image, layer); err != nil {
			return nil, err
		}
	}
	return image, nil
}

func stargzLayer(archive []byte) (mutate.Addendum, error) {
	built, err := estargz.Build(io.NewSectionReader(bytes.NewReader(archive), 0, int64(len(archive))))
	if err != nil {
		return mutate.Addendum{}, err
	}
	defer built.Close()
	blob, err := io.ReadAll(built)
	if err != nil {
		return mutate.Addendum{}, err
	}
	diff, err := v1.NewHash(built.DiffID().String())
	return mutate.Addendum{
		Layer: withDiffID{static.NewLayer(blob, types.OCILayer), diff}, MediaType: types.OCILayer,
		Annotations: map[string]string{estargz.TOCJSONDigestAnnotation: built.TOCDigest().String()},
	}, err
}

// withDiffID is a compressed layer that knows its uncompressed digest.
type withDiffID struct {
	v1.Layer
	diff v1.Hash
}

func (l withDiffID) DiffID() (v1.Hash, error) { return l.diff, nil }

// throttled is a way to the registry that lets each answer through at a speed, and counts.
type throttled struct {
	rate   atomic.Int64 // bytes a second of each blob's answer; 0: no bound
	blobs  atomic.Int64 // bytes of blobs that went through
	server *http.Server
}

type slowWriter struct {
	http.ResponseWriter
	t *throttled
}

func (w slowWriter) Write(p []byte) (n int, err error) {
	const piece = 8 << 10
	for len(p) > 0 && err == nil {
		var m int
		m, err = w.ResponseWriter.Write(p[:min(piece, len(p))])
		n, p = n+m, p[m:]
		w.t.blobs.Add(int64(m))
		if rate := w.t.rate.Load(); rate > 0 {
			if f, ok := w.ResponseWriter.(http.Flusher); ok {
				f.Flush()
			}
			time.Sleep(time.Duration(m) * time.Second / time.Duration(rate))
		}
	}
	return n, err
}

// throttle is the way to the registry: `throttle BYTES` a second (0: no bound), `throttle count` prints the
// bytes of blobs so far, `throttle down` cuts it. The first sets $SLOW to its address.
func throttle(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: throttle BYTES|count|down")
	}
	s := of(ts)
	switch t := s.throttled; {
	case args[0] == "count":
		fmt.Fprintln(ts.Stdout(), t.blobs.Load())
		return
	case args[0] == "down":
		ts.Check(t.server.Close())
		return
	case t == nil:
		s.throttled = &throttled{}
		target := &url.URL{Scheme: "http", Host: ts.Getenv("REGISTRY")}
		proxy := httputil.NewSingleHostReverseProxy(target)
		s.throttled.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/sha256:") && r.Method == http.MethodGet {
				w = slowWriter{w, s.throttled}
			}
			proxy.ServeHTTP(w, r)
		})}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		go s.throttled.server.Serve(l) //nolint:errcheck // it is closed
		s.ends = append(s.ends, s.throttled.server.Close)
		ts.Setenv("SLOW", l.Addr().String())
	}
	rate, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	s.throttled.rate.Store(rate)
}
