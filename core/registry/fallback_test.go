package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

// ranges records which parts of blobs a registry is asked for.
type ranges struct {
	mu    sync.Mutex
	asked []string
}

func (a *ranges) note(r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.Method+" "+r.Header.Get("Range"))
}

// mirrored pushes an image to a registry and a mirror of it, which answer for blobs as they are told, and
// resolves it by a client that has the mirror.
func mirrored(t *testing.T, copied, origin func(w http.ResponseWriter, r *http.Request, blob []byte) bool) (image *Image, b blobs, atMirror, atOrigin *ranges) {
	t.Helper()
	wrap := func(asked *ranges, answer func(http.ResponseWriter, *http.Request, []byte) bool) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
					asked.note(r)
					whole, q := httptest.NewRecorder(), r.Clone(r.Context())
					q.Header.Del("Range")
					next.ServeHTTP(whole, q)
					if answer(w, r, whole.Body.Bytes()) {
						return
					}
				}
				next.ServeHTTP(w, r)
			})
		}
	}
	atMirror, atOrigin = &ranges{}, &ranges{}
	there, home := serve(t, wrap(atMirror, copied)), serve(t, wrap(atOrigin, origin))
	b = blobs{}
	content := testImage(t, b, Host(), ocispec.MediaTypeImageManifest)
	for _, host := range []string{there, home} {
		if _, err := New(Options{}).Push(t.Context(), host+"/app", content, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	c := quick()
	c.rules.Load().mirrors = map[string][]mirror{home: {{there, true}}}
	image, err := c.Resolve(t.Context(), home+"/app", ocispec.Platform{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return image, b, atMirror, atOrigin
}

// breaksAfter sends so many bytes of a blob, whatever is asked for, and closes the connection.
func breaksAfter(n int) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
		from := 0
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
		if k, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); k == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(blob)-from))
			w.WriteHeader(http.StatusPartialContent)
		}
		if from < n {
			_, _ = w.Write(blob[from:n])
		}
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func serves(w http.ResponseWriter, r *http.Request, blob []byte) bool {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	return true
}

func fails(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
	w.WriteHeader(http.StatusNotFound)
	return true
}

// What a mirror does not bring to its end goes on at the registry from where it is, and further blobs begin there.
func TestMirrorBreaksOff(t *testing.T) {
	stalls := func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
		_, _ = w.Write(blob[:1000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	slowly := func(w http.ResponseWriter, r *http.Request, blob []byte) bool { // some of it each time
		from := 0
		if k, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); k == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(blob)-from))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
		}
		_, _ = w.Write(blob[from : from+1000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	for name, test := range map[string]struct {
		mirror           func(http.ResponseWriter, *http.Request, []byte) bool
		atMirror, atHome []string
	}{
		"after 1000 bytes for ever": {breaksAfter(1000), []string{"GET ", "GET bytes=1000-"}, []string{"GET bytes=1000-", "GET "}},
		"after 1000 more":           {slowly, []string{"GET ", "GET bytes=1000-"}, []string{"GET bytes=2000-", "GET "}},
		"at once":                   {breaksAfter(0), []string{"GET ", "GET "}, []string{"GET ", "GET "}},
		"has it not":                {fails, []string{"GET "}, []string{"GET ", "GET "}},
		"falls silent":              {stalls, []string{"GET "}, []string{"GET bytes=1000-", "GET "}},
		"another size": {func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			_, _ = w.Write([]byte("x"))
			return true
		}, []string{"GET "}, []string{"GET ", "GET "}},
	} {
		t.Run(name, func(t *testing.T) {
			image, b, atMirror, atHome := mirrored(t, test.mirror, serves)
			layer := image.Manifest.Layers[0]
			for range 2 {
				got, err := image.ReadBlob(t.Context(), layer, 2<<20)
				if err != nil || !bytes.Equal(got, b[layer.Digest]) {
					t.Fatalf("%d bytes: %v", len(got), err)
				}
			}
			if diff := cmp.Diff([][]string{test.atMirror, test.atHome}, [][]string{atMirror.asked, atHome.asked}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What a mirror sends in the place of a blob is read anew from the registry.
func TestMirrorSendsOtherBytes(t *testing.T) {
	image, b, _, atHome := mirrored(t, func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
		return serves(w, r, bytes.Repeat([]byte("x"), len(blob)))
	}, serves)
	got, err := image.ReadBlob(t.Context(), image.Manifest.Config, 2<<20)
	if err != nil || !bytes.Equal(got, b[image.Manifest.Config.Digest]) || len(atHome.asked) != 1 {
		t.Errorf("%d bytes: %v, asked %q", len(got), err, atHome.asked)
	}
	if image.Leave(t.Context()) {
		t.Error("there is somebody behind the registry")
	}
}

// A mirror that is all there is, because its registry is out of reach, has as many chances as a registry.
func TestMirrorAlone(t *testing.T) {
	image, b, atMirror, _ := mirrored(t, func() func(http.ResponseWriter, *http.Request, []byte) bool {
		n := 0
		return func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
			if n++; n > 4 {
				return serves(w, r, blob)
			}
			return breaksAfter(1000)(w, r, blob)
		}
	}(), fails)
	layer := image.Manifest.Layers[0]
	got, err := image.ReadBlob(t.Context(), layer, 2<<20)
	if err != nil || !bytes.Equal(got, b[layer.Digest]) || len(atMirror.asked) != 5 {
		t.Errorf("%d bytes: %v, asked %q", len(got), err, atMirror.asked)
	}
	image, _, _, _ = mirrored(t, breaksAfter(1000), fails)
	if _, err = image.ReadBlob(t.Context(), layer, 2<<20); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	plainly(t, err, "broke off after 1000 of")
}

// Parts, too, are asked for elsewhere when a mirror breaks one off.
func TestPartsBreakOff(t *testing.T) {
	blob := []byte(strings.Repeat("0123456789", 1000))
	at := func(answer http.HandlerFunc) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				answer(w, r)
			}
		}))
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	there := at(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-99/%d", len(blob)))
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(blob[:10])
	})
	home := at(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	})
	parts, err := New(Options{Mirrors: map[string][]string{home: {"http://" + there}}}).Parts(home+"/image", nil)
	if err != nil {
		t.Fatal(err)
	}
	d := ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	for i, want := range []int{10, 100, 100} {
		r, err := parts.Open(t.Context(), d, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if len(got) != want || (err == nil) != (want == 100) {
			t.Errorf("time %d: %d bytes, %v", i, len(got), err)
		}
	}
}
