package server_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/lazy"
	"github.com/sampan-project/sampan/core/lazy/server"
	"github.com/sampan-project/sampan/core/wire"
)

// TestMain is sampan-lazy when the client starts the test as such.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--socket" {
		l, err := net.FileListener(os.NewFile(3, "socket"))
		if err == nil {
			err = server.Run(l, os.Args[2], slog.New(slog.NewTextHandler(os.Stderr, nil)))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// registry is one repository with one blob.
type registry struct {
	*httptest.Server
	blob     atomic.Pointer[[]byte]
	bytes    atomic.Int64
	noRanges bool
	held     atomic.Int64 // requests of more bytes than this wait; 0: none does
	login    string       // user:password
	gone     chan struct{}
	once     sync.Once
}

func newRegistry(t *testing.T, blob []byte) *registry {
	r := &registry{gone: make(chan struct{})}
	r.blob.Store(&blob)
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.down)
	return r
}

func (r *registry) down() {
	r.once.Do(func() {
		close(r.gone)
		r.CloseClientConnections()
		r.Close()
	})
}

func (r *registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if user, password, _ := q.BasicAuth(); r.login != "" && user+":"+password != r.login {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if !strings.Contains(q.URL.Path, "/blobs/") {
		return
	}
	if r.noRanges {
		q.Header.Del("Range")
	}
	var from, to int64
	fmt.Sscanf(q.Header.Get("Range"), "bytes=%d-%d", &from, &to) //nolint:errcheck // without one it stays 0
	if bound := r.held.Load(); bound > 0 && to-from > bound {
		select {
		case <-r.gone:
		case <-q.Context().Done():
		}
		return
	}
	r.bytes.Add(to - from + 1)
	http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(*r.blob.Load()))
}

// image is a layer: its files, and its blob as eStargz.
type image struct {
	files map[string][]byte
	blob  []byte
	src   lazy.Source
}

func newImage(t *testing.T, r func([]byte) *registry) (*image, *registry) {
	t.Helper()
	i := &image{files: map[string][]byte{}}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	write := func(h tar.Header, content []byte) {
		h.Size, h.ModTime = int64(len(content)), time.Unix(1_700_000_000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write(content) //nolint:errcheck // into memory
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		content := make([]byte, 400_000)
		rand.Read(content) //nolint:errcheck // it never fails
		i.files[name] = content
		write(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o4751, Uid: 3, Gid: 4, PAXRecords: map[string]string{"SCHILY.xattr.user.color": "red"}}, content)
	}
	write(tar.Header{Typeflag: tar.TypeReg, Name: "dir/.wh.gone"}, nil)
	write(tar.Header{Typeflag: tar.TypeLink, Name: "dir/hard", Linkname: "a"}, nil)
	write(tar.Header{Typeflag: tar.TypeSymlink, Name: "dir/soft", Linkname: "hard"}, nil)
	write(tar.Header{Typeflag: tar.TypeChar, Name: "dir/null", Devmajor: 1, Devminor: 3, Mode: 0o666}, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	built, err := estargz.Build(io.NewSectionReader(bytes.NewReader(b.Bytes()), 0, int64(b.Len())), estargz.WithChunkSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer built.Close()
	if i.blob, err = io.ReadAll(built); err != nil {
		t.Fatal(err)
	}
	reg := r(i.blob)
	i.src = lazy.Source{
		Chain: digest.FromString(t.Name()), DiffID: built.DiffID(), Name: strings.TrimPrefix(reg.URL, "http://") + "/image",
		Blob: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(i.blob), Size: int64(len(i.blob)),
			Annotations: map[string]string{estargz.TOCJSONDigestAnnotation: built.TOCDigest().String()},
		},
	}
	return i, reg
}

// newClient returns a client whose process is gone when the test ends.
func newClient(t *testing.T, o lazy.Options) (*lazy.Client, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("this kernel has no FUSE: ", err)
	}
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.Dir, o.Cache, o.Program, o.Enabled = filepath.Join(dir, "run"), filepath.Join(dir, "cache"), program, true
	c := lazy.New(o)
	t.Cleanup(func() {
		if err := c.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		until(t, "the process has ended", func() bool {
			_, err := os.Lstat(filepath.Join(o.Dir, "lazy.sock"))
			return errors.Is(err, fs.ErrNotExist)
		})
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil || bytes.Contains(mounts, []byte(dir)) {
			t.Errorf("mounts are left: %v", err)
		}
	})
	return c, dir
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 1000 {
		if done() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("not so: %s", what)
}

func TestShown(t *testing.T) {
	i, reg := newImage(t, func(b []byte) *registry { return newRegistry(t, b) })
	reg.held.Store(300_000) // the whole does not come
	c, dir := newClient(t, lazy.Options{})
	opened, err := c.Open(t.Context(), i.src, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".", "dir"}, opened.Implied); diff != "" {
		t.Error(diff)
	}
	when := time.Unix(1_600_000_000, 5)
	if err := c.Settle(t.Context(), i.src.Chain, map[string]lazy.Attributes{"dir": {Mode: 0o2750, UID: 8, GID: 9, Mtime: when, Xattrs: map[string]string{"user.x": "y"}}}); err != nil {
		t.Fatal(err)
	}
	at := c.At(i.src.Chain)
	for name, want := range i.files {
		if name == "d" {
			continue
		}
		if got, err := os.ReadFile(filepath.Join(at, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if n := reg.bytes.Load(); n == 0 || n > int64(len(i.blob))-250_000 {
		t.Errorf("%d of %d bytes were fetched for three files of four", n, len(i.blob))
	}
	stat := func(name string) (st unix.Stat_t) {
		if err := unix.Lstat(filepath.Join(at, name), &st); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return st
	}
	if st := stat("a"); st.Mode != unix.S_IFREG|0o4751 || st.Uid != 3 || st.Gid != 4 || st.Nlink != 2 || st.Size != 400_000 || st.Mtim.Sec != 1_700_000_000 || st.Ino != stat("dir/hard").Ino {
		t.Errorf("a: %+v", st)
	}
	if st := stat("dir"); st.Mode != unix.S_IFDIR|0o2750 || st.Uid != 8 || st.Gid != 9 || st.Mtim.Nano() != when.UnixNano() {
		t.Errorf("dir: %+v", st)
	}
	if st := stat("dir/gone"); st.Mode != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("whiteout: %+v", st)
	}
	if st := stat("dir/null"); st.Mode != unix.S_IFCHR|0o666 || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("device: %+v", st)
	}
	if to, err := os.Readlink(filepath.Join(at, "dir/soft")); err != nil || to != "hard" {
		t.Errorf("link: %q %v", to, err)
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(filepath.Join(at, "a"), "user.color", value); err != nil || string(value[:max(n, 0)]) != "red" {
		t.Errorf("attribute: %q %v", value, err)
	}
	var names []string
	entries, err := os.ReadDir(at)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{".no.prefetch.landmark", "a", "b", "c", "d", "dir", "stargz.index.json"}, names); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := os.WriteFile(filepath.Join(at, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("written: %v", err)
	}

	// Who has the layer keeps it after it was given back, and after the registry is gone.
	f, err := os.Open(filepath.Join(at, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c.Close(i.src.Chain)
	reg.down()
	if left, err := os.ReadDir(filepath.Join(dir, "cache")); len(left) > 0 {
		t.Errorf("%v is left in the cache, %v", left, err)
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, i.files["a"]) {
		t.Errorf("after the end: %d bytes, %v", len(got), err)
	}
	if list, err := c.List(t.Context()); err != nil || len(list) != 1 || !list[0].Closed {
		t.Errorf("%+v %v", list, err)
	}
}

// The whole layer comes besides what is read, and is the blob.
func TestWhole(t *testing.T) {
	i, _ := newImage(t, func(b []byte) *registry { return newRegistry(t, b) })
	c, _ := newClient(t, lazy.Options{})
	if _, err := c.Open(t.Context(), i.src, nil); err != nil {
		t.Fatal(err)
	}
	path, err := c.Wait(t.Context(), i.src.Chain)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, i.blob) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// Wrong bytes are an error for whoever reads them, and the log says so; what is right can be read.
func TestCorrupt(t *testing.T) {
	i, reg := newImage(t, func(b []byte) *registry { return newRegistry(t, b) })
	wrong := bytes.Clone(i.blob)
	wrong[20_000] ^= 1 // in the first part of a: random bytes are not compressed
	reg.blob.Store(&wrong)
	c, dir := newClient(t, lazy.Options{})
	if _, err := c.Open(t.Context(), i.src, nil); err != nil {
		t.Fatal(err)
	}
	at := c.At(i.src.Chain)
	if got, err := os.ReadFile(filepath.Join(at, "a")); !errors.Is(err, unix.EIO) {
		t.Errorf("wrong content: %d bytes, %v", len(got), err)
	}
	if got, err := os.ReadFile(filepath.Join(at, "b")); err != nil || !bytes.Equal(got, i.files["b"]) {
		t.Errorf("right content: %d bytes, %v", len(got), err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "run/lazy.log"))
	if !strings.Contains(string(log), "cannot be read") || !strings.Contains(string(log), i.src.Blob.Digest.String()) {
		t.Errorf("log: %s %v", log, err)
	}
	// The registry is mended: the next reader gets what is right, and the whole comes.
	reg.blob.Store(&i.blob)
	if got, err := os.ReadFile(filepath.Join(at, "a")); err != nil || !bytes.Equal(got, i.files["a"]) {
		t.Errorf("mended content: %d bytes, %v", len(got), err)
	}
	if _, err := c.Wait(t.Context(), i.src.Chain); err != nil {
		t.Error(err)
	}
	// With nothing to show, and nobody who has it, the process ends by itself.
	c.Close(i.src.Chain)
	until(t, "the process has ended", func() bool {
		_, err := os.Lstat(filepath.Join(dir, "run/lazy.sock"))
		return errors.Is(err, fs.ErrNotExist)
	})
}

// A process that was killed leaves a dead mount. The next one shows the layer again, without a registry
// what had come before.
func TestKilled(t *testing.T) {
	i, reg := newImage(t, func(b []byte) *registry { return newRegistry(t, b) })
	reg.held.Store(300_000)
	lost := make(chan struct{})
	c, _ := newClient(t, lazy.Options{Lost: func() { close(lost) }})
	if err := c.Keep(t.Context(), i.src); err != nil {
		t.Fatal(err)
	}
	at := c.At(i.src.Chain)
	if _, err := os.ReadFile(filepath.Join(at, "a")); err != nil {
		t.Fatal(err)
	}
	reg.down()
	root, err := os.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if lazy.Dead(at) {
		t.Error("a layer that is served counts as dead")
	}
	kill(t, c)
	select {
	case <-lost:
	case <-t.Context().Done():
		t.Fatal("the loss is not told")
	}
	if !lazy.Dead(fmt.Sprintf("/proc/self/fd/%d", root.Fd())) {
		t.Error("a layer that nobody serves does not count as dead")
	}
	if err := c.Keep(t.Context(), i.src); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(at, "a")); err != nil || !bytes.Equal(got, i.files["a"]) {
		t.Errorf("what had come: %d bytes, %v", len(got), err)
	}
	if _, err := os.ReadFile(filepath.Join(at, "d")); !errors.Is(err, unix.EIO) {
		t.Errorf("what had not: %v", err)
	}
	c.Close(i.src.Chain)
	if list, err := c.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("one Close does not give back what was kept twice: %v %v", list, err)
	}
}

func kill(t *testing.T, c *lazy.Client) {
	t.Helper()
	h, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(h.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// What stands in the way is an error, and nothing is left of it.
func TestRefused(t *testing.T) {
	for name, spoil := range map[string]func(*image, *registry){
		"no ranges":   func(_ *image, r *registry) { r.noRanges = true },
		"no registry": func(_ *image, r *registry) { r.down() },
		"another table": func(i *image, _ *registry) {
			i.src.Blob.Annotations[estargz.TOCJSONDigestAnnotation] = digest.FromString("x").String()
		},
		"another size":   func(i *image, _ *registry) { i.src.Blob.Size -= 10 },
		"no table":       func(i *image, _ *registry) { i.src.Blob.Annotations = nil },
		"login required": func(_ *image, r *registry) { r.login = "somebody:else" },
	} {
		t.Run(name, func(t *testing.T) {
			i, reg := newImage(t, func(b []byte) *registry { return newRegistry(t, b) })
			c, dir := newClient(t, lazy.Options{})
			spoil(i, reg)
			if _, err := c.Open(t.Context(), i.src, nil); err == nil {
				t.Error("no error")
			}
			if left, err := os.ReadDir(filepath.Join(dir, "cache")); len(left) > 0 {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

// A login is in the memory of the process and nowhere else.
func TestLogin(t *testing.T) {
	i, reg := newImage(t, func(b []byte) *registry { return newRegistry(t, b) })
	reg.login = "me:quite-secret"
	c, dir := newClient(t, lazy.Options{})
	if _, err := c.Open(t.Context(), i.src, &wire.AuthConfig{Username: "me", Password: "quite-secret"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(filepath.Join(c.At(i.src.Chain), "a")); err != nil {
		t.Error(err)
	}
	h, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", h.Pid, name))
		if err != nil || bytes.Contains(text, []byte("secret")) {
			t.Errorf("%s: %q %v", name, text, err)
		}
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if text, err := os.ReadFile(path); err != nil || bytes.Contains(text, []byte("quite-secret")) {
			t.Errorf("%s has the login, %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Without a program there is nothing to be shown, and it is told at once.
func TestNoProgram(t *testing.T) {
	i, _ := newImage(t, func(b []byte) *registry { return newRegistry(t, b) })
	c := lazy.New(lazy.Options{Dir: t.TempDir(), Cache: t.TempDir(), Enabled: true})
	if c.Can(i.src) {
		t.Error("it can")
	}
	if _, err := c.Open(t.Context(), i.src, nil); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}
