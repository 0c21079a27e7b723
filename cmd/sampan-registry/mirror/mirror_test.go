package mirror_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/cmd/sampan-registry/mirror"
	"github.com/sampan-project/sampan/cmd/sampan-registry/server"
	"github.com/sampan-project/sampan/cmd/sampan-registry/store"
	"github.com/sampan-project/sampan/core/metric"
)

var quiet = slog.New(slog.DiscardHandler)

func newStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// origin is the other registry: it counts what it is asked for, and can hold back blobs or corrupt them.
type origin struct {
	*httptest.Server
	inner   http.Handler
	store   *store.Store
	blobs   atomic.Int32
	hold    chan struct{} // blobs wait until it is closed, when it is not nil
	corrupt atomic.Bool
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{store: newStore(t)}
	o.inner = server.New(o.store, server.Options{Log: quiet})
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Path, "/blobs/sha256:") && r.Method == http.MethodGet {
		o.blobs.Add(1)
		if o.hold != nil {
			<-o.hold
		}
		if o.corrupt.Load() {
			w.Header().Set("Content-Length", "5")
			_, _ = w.Write([]byte("wrong"))
			return
		}
	}
	o.inner.ServeHTTP(w, r)
}

func (o *origin) push(t *testing.T, tag string) (manifest, blob digest.Digest) {
	t.Helper()
	do := func(method, path, mediaType, body string) {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", mediaType)
		w := httptest.NewRecorder()
		if o.inner.ServeHTTP(w, r); w.Code != http.StatusCreated {
			t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	blob = digest.FromString(content)
	do("POST", "/v2/team/app/blobs/uploads/?digest="+blob.String(), "", content)
	body := `{"schemaVersion":2,"config":{"digest":"` + blob.String() + `","size":5},"layers":[],"annotations":{"tag":"` + tag + `"}}`
	do("PUT", "/v2/team/app/manifests/"+tag, ocispec.MediaTypeImageManifest, body)
	return digest.FromString(body), blob
}

const content = "hello"

// newCache is a registry in front of another one.
func newCache(t *testing.T, o *origin) (url string, numbers *metric.Registry) {
	t.Helper()
	s, numbers := newStore(t), metric.NewRegistry()
	c, err := mirror.New(s, mirror.Options{URL: o.URL, Log: quiet, Metrics: numbers})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(server.New(s, server.Options{Cache: c, Log: quiet}))
	t.Cleanup(h.Close)
	return h.URL, numbers
}

func get(t *testing.T, url string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func want(t *testing.T, url string, status int, text string) {
	t.Helper()
	got, body, err := get(t, url)
	if err != nil || got != status || !strings.Contains(body, text) {
		t.Errorf("GET %s: %d %s %v: expected %d %s", url, got, body, err, status, text)
	}
}

func counted(t *testing.T, numbers *metric.Registry, line string) {
	t.Helper()
	var b bytes.Buffer
	if err := numbers.Write(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), line+"\n") {
		t.Errorf("no %q in\n%s", line, b.String())
	}
}

func TestBlobComesOnceForAll(t *testing.T) {
	o := newOrigin(t)
	_, blob := o.push(t, "1")
	o.hold = make(chan struct{})
	cache, numbers := newCache(t, o)
	url := cache + "/v2/team/app/blobs/" + blob.String()
	var waiting sync.WaitGroup
	for range 5 {
		waiting.Go(func() { want(t, url, http.StatusOK, content) })
	}
	close(o.hold)
	waiting.Wait()
	// Whoever came after the blob had arrived was served from the store.
	want(t, url, http.StatusOK, content)
	if n := o.blobs.Load(); n != 1 {
		t.Errorf("the other registry was asked %d times for one blob", n)
	}
	counted(t, numbers, "sampan_registry_cache_received_bytes_total 5")
	want(t, cache+"/v2/team/app/blobs/"+digest.FromString("nothing").String(), http.StatusNotFound, "BLOB_UNKNOWN")
}

// Who asks how large a blob is does not make it come.
func TestHeadFetchesNothing(t *testing.T) {
	o := newOrigin(t)
	_, blob := o.push(t, "1")
	cache, numbers := newCache(t, o)
	head := func(d digest.Digest) (int, http.Header) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, cache+"/v2/team/app/blobs/"+d.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	status, h := head(blob)
	if status != http.StatusOK || h.Get("Content-Length") != "5" || h.Get("Docker-Content-Digest") != blob.String() {
		t.Errorf("%d %v", status, h)
	}
	if status, _ := head(digest.FromString("nothing")); status != http.StatusNotFound {
		t.Errorf("what is not there: %d", status)
	}
	if n := o.blobs.Load(); n != 0 {
		t.Errorf("the blob was fetched %d times", n)
	}
	counted(t, numbers, "sampan_registry_cache_received_bytes_total 0")
	want(t, cache+"/v2/team/app/blobs/"+blob.String(), http.StatusOK, content)
	o.Close()
	if status, h := head(blob); status != http.StatusOK || h.Get("Content-Length") != "5" {
		t.Errorf("what has come: %d %v", status, h)
	}
}

func TestWrongBlobIsNotKept(t *testing.T) {
	o := newOrigin(t)
	_, blob := o.push(t, "1")
	o.corrupt.Store(true)
	cache, _ := newCache(t, o)
	url := cache + "/v2/team/app/blobs/" + blob.String()
	if _, body, err := get(t, url); err == nil {
		t.Errorf("%q was sent whole as %s", body, blob)
	}
	o.corrupt.Store(false)
	want(t, url, http.StatusOK, content)
}

func TestTags(t *testing.T) {
	o := newOrigin(t)
	first, _ := o.push(t, "1")
	cache, numbers := newCache(t, o)
	url := cache + "/v2/team/app/manifests/"
	want(t, url+"1", http.StatusOK, `"tag":"1"`)
	counted(t, numbers, `sampan_registry_cache_requests_total{kind="manifest",result="miss"} 1`)
	want(t, url+"1", http.StatusOK, `"tag":"1"`)
	want(t, url+first.String(), http.StatusOK, `"tag":"1"`)
	counted(t, numbers, `sampan_registry_cache_requests_total{kind="manifest",result="hit"} 2`)
	want(t, url+"2", http.StatusNotFound, "MANIFEST_UNKNOWN")
	o.push(t, "2")
	want(t, url+"2", http.StatusOK, `"tag":"2"`)
	want(t, cache+"/v2/team/app/tags/list", http.StatusOK, `["1","2"]`)
	want(t, cache+"/v2/team/app/referrers/"+first.String(), http.StatusOK, `"manifests":[]`)

	// What a tag is, only the other registry knows; if it is away, what it was.
	if err := o.store.Untag("team/app", "2"); err != nil {
		t.Fatal(err)
	}
	want(t, url+"2", http.StatusNotFound, "MANIFEST_UNKNOWN")
	o.Close()
	want(t, url+"1", http.StatusOK, `"tag":"1"`)
	want(t, url+first.String(), http.StatusOK, `"tag":"1"`)
	counted(t, numbers, `sampan_registry_cache_requests_total{kind="manifest",result="stale"} 1`)
	want(t, url+"3", http.StatusBadGateway, "UNAVAILABLE")
}

func TestAddresses(t *testing.T) {
	for _, url := range []string{"", "registry.example", "ftp://registry.example", "https://", "https://user:pw@registry.example", "https://registry.example/path"} {
		if _, err := mirror.New(newStore(t), mirror.Options{URL: url, Log: quiet, Metrics: metric.NewRegistry()}); err == nil {
			t.Errorf("%q was taken", url)
		}
	}
}
