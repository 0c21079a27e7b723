package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// quick is a client that does not wait long.
func quick() *Client {
	c := New(Options{})
	r := c.rules.Load()
	r.stalled, r.wait = 100*time.Millisecond, time.Millisecond
	return c
}

// published pushes an image behind wrap and resolves it.
func published(t *testing.T, c *Client, wrap func(http.Handler) http.Handler) (*Image, blobs) {
	t.Helper()
	host, b := serve(t, wrap), blobs{}
	if _, err := c.Push(t.Context(), host+"/app", testImage(t, b, Host(), ocispec.MediaTypeImageManifest), nil, nil); err != nil {
		t.Fatal(err)
	}
	image, err := c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return image, b
}

// A registry that falls silent is left, and asked for the rest, with longer and longer waits; one that stays
// silent is an error that names the blob.
func TestStalls(t *testing.T) {
	var silent atomic.Int32
	var asked []string
	var mu sync.Mutex
	image, b := published(t, quick(), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
				next.ServeHTTP(w, r)
				return
			}
			mu.Lock()
			asked = append(asked, r.Header.Get("Range"))
			mu.Unlock()
			content := httptest.NewRecorder()
			q := r.Clone(r.Context())
			q.Header.Del("Range")
			next.ServeHTTP(content, q)
			data, from := content.Body.Bytes(), 0
			if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); n == 1 {
				w.Header().Set("Content-Length", fmt.Sprint(len(data)-from))
				w.WriteHeader(http.StatusPartialContent)
			} else {
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			}
			if silent.Add(-1) < 0 {
				_, _ = w.Write(data[from:])
				return
			}
			_, _ = w.Write(data[from:min(from+1000, len(data))])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
	})
	layer := image.Manifest.Layers[0]
	silent.Store(3)
	got, err := image.ReadBlob(t.Context(), layer, 2<<20)
	if err != nil || !bytes.Equal(got, b[layer.Digest]) {
		t.Errorf("%d bytes: %v", len(got), err)
	}
	if diff := cmp.Diff([]string{"", "bytes=1000-", "bytes=2000-", "bytes=3000-"}, asked); diff != "" {
		t.Error(diff)
	}
	rest, err := image.Rest(t.Context(), layer, 5000)
	if err != nil {
		t.Fatal(err)
	}
	got, err = io.ReadAll(rest)
	if err != nil || !bytes.Equal(got, b[layer.Digest][5000:]) {
		t.Errorf("the rest: %d bytes: %v", len(got), err)
	}
	if all, err := image.Rest(t.Context(), layer, layer.Size); err != nil {
		t.Error(err)
	} else if n, err := io.Copy(io.Discard, all); n != 0 || err != nil {
		t.Errorf("the rest of everything: %d bytes, %v", n, err)
	}
}

// What says that it was asked too often is asked again when it wishes so, or explained.
func TestTooManyRequests(t *testing.T) {
	for _, test := range []struct {
		name, after string
		refusals    int32
		want        string // "": success
	}{
		{"soon", "0", 2, ""},
		{"too often", "0", 100, "toomanyrequests: slow down (it says: try again in 0s)"},
		{"in an hour", "3600", 100, "toomanyrequests: slow down (it says: try again in 1h0m0s)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var left atomic.Int32
			c, b := New(Options{}), blobs{}
			host := serve(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if left.Add(-1) >= 0 {
						w.Header().Set("Retry-After", test.after)
						w.WriteHeader(http.StatusTooManyRequests)
						_, _ = io.WriteString(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\ndown"}]}`)
						return
					}
					next.ServeHTTP(w, r)
				})
			})
			image := testImage(t, b, Host(), ocispec.MediaTypeImageManifest)
			judge := func(what string, err error) {
				t.Helper()
				if test.want == "" && err != nil || test.want != "" && (!fault.Is(err, fault.Unavailable) || err.Error() != test.want) {
					t.Errorf("%s: %v", what, err)
				}
			}
			left.Store(test.refusals)
			_, err := c.Push(t.Context(), host+"/app", image, nil, nil)
			judge("push", err)
			left.Store(0)
			if _, err := c.Push(t.Context(), host+"/app", image, nil, nil); err != nil {
				t.Fatal(err)
			}
			left.Store(test.refusals)
			_, err = c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, nil)
			judge("pull", err)
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{"": -1, "7": 7 * time.Second, "-1": -1, "x": -1, now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Hour).Format(http.TimeFormat): 0} {
		got, ok := retryAfter(value, now)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %s: expected %s", value, got, want)
		}
	}
}

// A registry may send blobs from another host, which gets neither password nor token.
func TestRedirectsLoseTheLogin(t *testing.T) {
	for _, tokens := range []bool{false, true} {
		t.Run(fmt.Sprintf("tokens %t", tokens), func(t *testing.T) {
			b := blobs{}
			image := testImage(t, b, Host(), ocispec.MediaTypeImageManifest)
			var leaked, served atomic.Int32
			elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" || strings.Contains(r.URL.RawQuery, "secret") {
					leaked.Add(1)
				}
				served.Add(1)
				_, _ = w.Write(b[digest.Digest(strings.TrimPrefix(r.URL.Path, "/"))])
			}))
			t.Cleanup(elsewhere.Close)
			auth := withPassword("user", "secret", tokens)
			host := serve(t, func(next http.Handler) http.Handler {
				return auth(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if at := strings.LastIndex(r.URL.Path, "/sha256:"); r.Method == http.MethodGet && at > 0 && strings.Contains(r.URL.Path, "/blobs/") {
						http.Redirect(w, r, elsewhere.URL+r.URL.Path[at:], http.StatusTemporaryRedirect)
						return
					}
					next.ServeHTTP(w, r)
				}))
			})
			c, login := New(Options{}), &wire.AuthConfig{Username: "user", Password: "secret"}
			if _, err := c.Push(t.Context(), host+"/app", image, login, nil); err != nil {
				t.Fatal(err)
			}
			found, err := c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, login)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range found.Manifest.Layers {
				got, err := found.ReadBlob(t.Context(), d, 2<<20)
				if err != nil || !bytes.Equal(got, b[d.Digest]) {
					t.Errorf("%d bytes: %v", len(got), err)
				}
			}
			if leaked.Load() != 0 || served.Load() == 0 {
				t.Errorf("%d of %d requests to another host had the login", leaked.Load(), served.Load())
			}
		})
	}
}

// A mirror that is not there, or has not the image, or is ill, is passed over.
func TestMirrorsFail(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, mirror := range map[string]string{
		"down": strings.TrimPrefix(closed.URL, "http://"), "lacks the image": serve(t, nil),
		"ill": serve(t, func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "ill", http.StatusNotImplemented) })
		}),
	} {
		t.Run(name, func(t *testing.T) {
			host, b := serve(t, nil), blobs{}
			c := New(Options{Mirrors: map[string][]string{host: {"http://" + mirror}}})
			if _, err := c.Push(t.Context(), host+"/app", testImage(t, b, Host(), ocispec.MediaTypeImageManifest), nil, nil); err != nil {
				t.Fatal(err)
			}
			found, err := c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := found.ReadBlob(t.Context(), found.Manifest.Layers[0], 2<<20); err != nil {
				t.Error(err)
			}
		})
	}
}

// A token that has run out is asked for anew.
func TestTokensRunOut(t *testing.T) {
	var tokens atomic.Int32
	var uses sync.Map // by token
	var self string
	host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				fmt.Fprintf(w, `{"token":"t%d"}`, tokens.Add(1))
				return
			}
			// A token is good for three requests.
			token := r.Header.Get("Authorization")
			used, _ := uses.LoadOrStore(token, new(atomic.Int32))
			if token == "" || used.(*atomic.Int32).Add(1) > 3 {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, self))
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	self = host
	c, b := New(Options{}), blobs{}
	if _, err := c.Push(t.Context(), host+"/app", testImage(t, b, Host(), ocispec.MediaTypeImageManifest), nil, nil); err != nil {
		t.Fatal(err)
	}
	found, err := c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, d := range found.Manifest.Layers {
			if got, err := found.ReadBlob(t.Context(), d, 2<<20); err != nil || !bytes.Equal(got, b[d.Digest]) {
				t.Errorf("%d bytes: %v", len(got), err)
			}
		}
	}
	if tokens.Load() < 3 {
		t.Errorf("%d tokens were asked for", tokens.Load())
	}
}

// A blob that the registry has in another repository is mounted from there.
func TestPushMounts(t *testing.T) {
	// The registry of go-containerregistry does not mount; this one says that it did.
	var asked []string
	var mu sync.Mutex
	host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if from := r.URL.Query().Get("from"); r.Method == http.MethodPost && from != "" {
				mu.Lock()
				asked = append(asked, from)
				mu.Unlock()
				w.WriteHeader(http.StatusCreated)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	c, b := New(Options{}), blobs{}
	image := testImage(t, b, Host(), ocispec.MediaTypeImageManifest)
	image.Sources = func(digest.Digest) []string {
		return []string{"elsewhere.example/team/app", host + "/team/app", host + "/team/base"}
	}
	var said []string
	_, _ = c.Push(t.Context(), host+"/team/app", image, nil, func(m wire.Message) { said = append(said, m.Status) })
	if diff := cmp.Diff([]string{"team/base", "team/base", "team/base"}, asked); diff != "" {
		t.Error(diff)
	}
	if n := strings.Count(strings.Join(said, "|"), "Mounted from team/base"); n != 2 {
		t.Errorf("it says %q", said)
	}
}
