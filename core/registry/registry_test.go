package registry

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	fake "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// blobs is content in memory.
type blobs map[digest.Digest][]byte

type readSeekNopCloser struct{ io.ReadSeeker }

func (readSeekNopCloser) Close() error { return nil }

func (b blobs) Get(d digest.Digest) (io.ReadSeekCloser, error) {
	data, ok := b[d]
	if !ok {
		return nil, fault.New(fault.NotFound, "no blob %s", d)
	}
	return readSeekNopCloser{bytes.NewReader(data)}, nil
}

func (b blobs) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b[d.Digest] = data
	return d
}

// testImage is an image of two layers for a platform.
func testImage(t *testing.T, b blobs, p ocispec.Platform, mediaType string) PushRequest {
	t.Helper()
	config := toJSON(t, ocispec.Image{Platform: p})
	noise := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{byte(len(p.Architecture))})
	_, _ = random.Read(noise)
	m := ocispec.Manifest{
		MediaType: mediaType,
		Config:    b.add(ocispec.MediaTypeImageConfig, config),
		Layers: []ocispec.Descriptor{
			b.add(ocispec.MediaTypeImageLayerGzip, noise),
			b.add(ocispec.MediaTypeImageLayerGzip, []byte("second of "+p.Architecture)),
		},
	}
	m.SchemaVersion = 2
	return PushRequest{Raw: toJSON(t, m), MediaType: mediaType, Blobs: b}
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// serve starts a registry in memory, behind wrap, and returns its host.
func serve(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	h := fake.New(fake.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		h = wrap(h)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestPushAndPull(t *testing.T) {
	for _, mediaType := range []string{ocispec.MediaTypeImageManifest, MediaTypeDockerManifest} {
		t.Run(mediaType, func(t *testing.T) {
			host, b, c := serve(t, nil), blobs{}, New(Options{})
			image := testImage(t, b, ocispec.Platform{OS: "linux", Architecture: "amd64"}, mediaType)
			var said []string
			pushed, err := c.Push(t.Context(), host+"/team/app:1", image, nil, func(m wire.Message) {
				if m.ProgressDetail == nil {
					said = append(said, m.Status)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if pushed.Digest != digest.FromBytes(image.Raw) {
				t.Errorf("pushed %s: expected %s", pushed.Digest, digest.FromBytes(image.Raw))
			}
			if n := strings.Count(strings.Join(said, "\n"), "Pushed"); n != 2 {
				t.Errorf("%d layers pushed: expected 2: %q", n, said)
			}
			found, err := c.Resolve(t.Context(), host+"/team/app:1", ocispec.Platform{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if found.Name != host+"/team/app" || found.Digest != pushed.Digest || !bytes.Equal(found.Raw, image.Raw) {
				t.Errorf("resolved %s %s", found.Name, found.Digest)
			}
			for _, d := range append(found.Manifest.Layers, found.Manifest.Config) {
				got, err := found.ReadBlob(t.Context(), d, 2<<20)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, b[d.Digest]) {
					t.Errorf("blob %s differs", d.Digest)
				}
			}
			if _, err := found.ReadBlob(t.Context(), found.Manifest.Layers[0], 1000); !fault.Is(err, fault.Invalid) {
				t.Errorf("a blob above the limit: %v", err)
			}

			said = nil
			if _, err := c.Push(t.Context(), host+"/team/app:2", image, nil, func(m wire.Message) { said = append(said, m.Status) }); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(strings.Join(said, "\n"), "Layer already exists"); n != 2 {
				t.Errorf("second push: %d layers exist: expected 2: %q", n, said)
			}
		})
	}
}

func TestPlatforms(t *testing.T) {
	host, b, c := serve(t, nil), blobs{}, New(Options{})
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	digests := map[string]digest.Digest{}
	for _, p := range []ocispec.Platform{
		{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64", Variant: "v8"},
		{OS: "linux", Architecture: "arm", Variant: "v6"}, {OS: "windows", Architecture: "amd64"},
	} {
		image := testImage(t, b, p, ocispec.MediaTypeImageManifest)
		d, err := c.Push(t.Context(), host+"/app:"+p.OS+p.Architecture, image, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		d.Platform = &p
		digests[p.OS+"/"+p.Architecture] = d.Digest
		index.Manifests = append(index.Manifests, d)
	}
	attestation := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: index.Manifests[0].Digest, Size: index.Manifests[0].Size,
		Platform: &ocispec.Platform{OS: "unknown", Architecture: "unknown"},
	}
	index.Manifests = append([]ocispec.Descriptor{attestation}, index.Manifests...)
	raw := toJSON(t, index)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+host+"/v2/app/manifests/latest", bytes.NewReader(raw))
	req.Header.Set("Content-Type", index.MediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("put index: %v %v", resp, err)
	}
	resp.Body.Close()

	for given, want := range map[string]string{
		"linux/amd64": "linux/amd64", "x86_64": "linux/amd64", "linux/arm64": "linux/arm64", "aarch64": "linux/arm64",
		"linux/arm/v7": "linux/arm", "linux/arm": "linux/arm", "windows/amd64": "windows/amd64",
		"linux/arm/v5": "", "linux/s390x": "", "linux/amd64/v3": "linux/amd64",
	} {
		p, err := ParsePlatform(given)
		if err != nil {
			t.Fatal(err)
		}
		found, err := c.Resolve(t.Context(), host+"/app", p, nil)
		switch {
		case want == "":
			if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "no matching manifest for "+given) {
				t.Errorf("%s: %v", given, err)
			}
		case err != nil:
			t.Errorf("%s: %v", given, err)
		case found.Descriptor.Digest != digests[want] || found.Digest != digest.FromBytes(raw):
			t.Errorf("%s: found %s in %s", given, found.Descriptor.Digest, found.Digest)
		}
	}
	known, err := c.Distribution(t.Context(), host+"/app", nil)
	if err != nil || len(known.Platforms) != 5 || known.Descriptor.Digest != digest.FromBytes(raw).String() {
		t.Errorf("distribution: %+v %v", known, err)
	}
	single, err := c.Distribution(t.Context(), host+"/app:linuxamd64", nil)
	if diff := cmp.Diff([]wire.Platform{{OS: "linux", Architecture: "amd64"}}, single.Platforms); err != nil || diff != "" {
		t.Errorf("distribution of one image: %v %s", err, diff)
	}
	byDigest, err := c.Resolve(t.Context(), host+"/app@"+digests["linux/arm64"].String(), ocispec.Platform{}, nil)
	if err != nil || byDigest.Digest != digests["linux/arm64"] {
		t.Errorf("by digest: %v", err)
	}
}

func TestParsePlatformRefuses(t *testing.T) {
	for _, given := range []string{"linux/", "/amd64", "linux/a/b/c", "amd64/v2/x", "linux/a b"} {
		if p, err := ParsePlatform(given); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v %v", given, p, err)
		}
	}
}

func TestErrors(t *testing.T) {
	host, c := serve(t, nil), New(Options{})
	if _, err := c.Push(t.Context(), host+"/app:1", testImage(t, blobs{}, Host(), ocispec.MediaTypeImageManifest), nil, nil); err != nil {
		t.Fatal(err)
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	gone := strings.TrimPrefix(closed.URL, "http://")
	denied := serve(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"requested access\nto the resource is denied"}]}`)
		})
	})
	for _, test := range []struct {
		ref   string
		class fault.Class
		text  string
	}{
		{host + "/app:2", fault.NotFound, "manifest for " + host + "/app:2 not found: manifest unknown"},
		{host + "/none", fault.NotFound, "manifest for " + host + "/none:latest not found: manifest unknown"},
		{denied + "/secret", fault.NotFound, "pull access denied for " + denied + "/secret, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"},
		{gone + "/app", fault.Unavailable, "connection refused"},
		{"UPPER/case", fault.Invalid, "invalid reference format"},
		{"a:b:c", fault.Invalid, "invalid reference format"},
		{"", fault.Invalid, "invalid reference format"},
	} {
		_, err := c.Resolve(t.Context(), test.ref, ocispec.Platform{}, nil)
		if !fault.Is(err, test.class) || !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v: %v", test.ref, fault.ClassOf(err), err)
		}
	}
}

// A registry that sends something else than it promised is found out, whatever it is.
func TestHostileBlobs(t *testing.T) {
	good := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	want := ocispec.Descriptor{Digest: digest.FromBytes(good), Size: int64(len(good))}
	var answer atomic.Pointer[func(http.ResponseWriter, *http.Request)]
	b, c := blobs{}, New(Options{})
	host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if fn := answer.Load(); fn != nil && strings.Contains(r.URL.Path, "/blobs/") {
				(*fn)(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	if _, err := c.Push(t.Context(), host+"/app", testImage(t, b, Host(), ocispec.MediaTypeImageManifest), nil, nil); err != nil {
		t.Fatal(err)
	}
	image, err := c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	breaks := 0
	for _, test := range []struct {
		name  string
		class fault.Class // Internal: no error
		text  string
		fn    func(http.ResponseWriter, *http.Request)
	}{
		{"other content", fault.Invalid, "verification failed", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.ToUpper(good))
		}},
		{"longer, told", fault.Invalid, "the registry has 65537", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "65537")
			_, _ = w.Write(append(bytes.Clone(good), 'x'))
		}},
		{"longer, untold", fault.Invalid, "sends more", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(good)
			w.(http.Flusher).Flush()
			_, _ = w.Write(good)
		}},
		{"breaks and goes on", fault.Internal, "", func(w http.ResponseWriter, r *http.Request) {
			if h := r.Header.Get("Range"); h != "" {
				breaks++
				from := want.Size / 2
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(good[from:])
				return
			}
			w.Header().Set("Content-Length", "65536")
			_, _ = w.Write(good[:want.Size/2])
		}},
		{"breaks and knows no ranges", fault.Internal, "", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "65536")
			if r.Header.Get("Range") != "" {
				breaks++
				_, _ = w.Write(good)
				return
			}
			_, _ = w.Write(good[:1000])
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer.Store(&test.fn)
			got, err := image.ReadBlob(t.Context(), want, 1<<20)
			if test.class == fault.Internal {
				if err != nil || !bytes.Equal(got, good) {
					t.Errorf("%d bytes: %v", len(got), err)
				}
				return
			}
			if !fault.Is(err, test.class) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v: %v", fault.ClassOf(err), err)
			}
		})
	}
	if breaks != 2 {
		t.Errorf("%d downloads were resumed: expected 2", breaks)
	}
}

func TestHostileManifests(t *testing.T) {
	c := New(Options{})
	for name, test := range map[string]struct{ contentType, body, text string }{
		"huge":       {ocispec.MediaTypeImageManifest, strings.Repeat(" ", maxManifest+1), "at most"},
		"no JSON":    {ocispec.MediaTypeImageManifest, "{", "unexpected end"},
		"schema 1":   {mediaTypeSchema1, `{"schemaVersion":1}`, "schema version 1"},
		"bad digest": {ocispec.MediaTypeImageManifest, `{"config":{"digest":"sha256:../../etc","size":1}}`, "digest"},
		"negative":   {ocispec.MediaTypeImageManifest, `{"config":{"digest":"` + digest.FromString("x").String() + `","size":-1}}`, "size -1"},
		"unknown":    {"application/vnd.example+json", `{}`, "media type"},
		"empty list": {ocispec.MediaTypeImageIndex, `{"manifests":[]}`, "no matching manifest"},
		"loop":       {ocispec.MediaTypeImageIndex, `{"manifests":[{"mediaType":"` + ocispec.MediaTypeImageIndex + `","digest":"` + digest.FromString("x").String() + `"}]}`, "verification failed"},
	} {
		t.Run(name, func(t *testing.T) {
			host := serve(t, func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", test.contentType)
					if r.URL.Path != "/v2/" {
						_, _ = io.WriteString(w, test.body)
					}
				})
			})
			_, err := c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, nil)
			if err == nil || !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
		})
	}
}

// withPassword is a registry for one user; with tokens it hands out tokens (distribution-spec's
// predecessor, "Token Authentication Specification").
func withPassword(user, password string, tokens bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u, p, _ := r.BasicAuth()
			right := u == user && p == password
			switch {
			case r.URL.Path == "/token":
				if !right {
					w.WriteHeader(http.StatusUnauthorized)
					_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}`)
					return
				}
				_, _ = io.WriteString(w, `{"token":"open sesame"}`)
			case right && !tokens, tokens && r.Header.Get("Authorization") == "Bearer open sesame":
				next.ServeHTTP(w, r)
			default:
				challenge := `Basic realm="test"`
				if tokens {
					challenge = `Bearer realm="http://` + r.Host + `/token",service="test"`
				}
				w.Header().Set("WWW-Authenticate", challenge)
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
			}
		})
	}
}

func TestLogin(t *testing.T) {
	for _, tokens := range []bool{false, true} {
		t.Run(map[bool]string{false: "basic", true: "token"}[tokens], func(t *testing.T) {
			host, c := serve(t, withPassword("ann", "secret", tokens)), New(Options{})
			right := wire.AuthConfig{Username: "ann", Password: "secret", ServerAddress: "http://" + host}
			packed := wire.AuthConfig{Auth: "YW5uOnNlY3JldA==", ServerAddress: host}
			wrong := wire.AuthConfig{Username: "ann", Password: "guess", ServerAddress: host}
			for _, auth := range []wire.AuthConfig{right, packed} {
				if got, err := c.Login(t.Context(), auth); err != nil || got.Status != "Login Succeeded" {
					t.Errorf("right password: %v %v", got, err)
				}
			}
			_, err := c.Login(t.Context(), wrong)
			if !fault.Is(err, fault.Unauthorized) || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "guess") {
				t.Errorf("wrong password: %v: %v", fault.ClassOf(err), err)
			}
			image := testImage(t, blobs{}, Host(), ocispec.MediaTypeImageManifest)
			if _, err := c.Push(t.Context(), host+"/app", image, nil, nil); !fault.Is(err, fault.Unauthorized) {
				t.Errorf("push without a login: %v: %v", fault.ClassOf(err), err)
			}
			if _, err := c.Push(t.Context(), host+"/app", image, &right, nil); err != nil {
				t.Errorf("push: %v", err)
			}
			if _, err := c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, nil); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "docker login") {
				t.Errorf("pull without a login: %v: %v", fault.ClassOf(err), err)
			}
			found, err := c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, &right)
			if err != nil {
				t.Fatalf("pull: %v", err)
			}
			if _, err := found.ReadBlob(t.Context(), found.Manifest.Config, 1<<20); err != nil {
				t.Errorf("blob: %v", err)
			}
		})
	}
}

// Mirrors are asked first; one that is down or has not the image is passed over.
func TestMirrors(t *testing.T) {
	var asked atomic.Int32
	mirror := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			next.ServeHTTP(w, r)
		})
	})
	origin := serve(t, nil)
	plain := New(Options{})
	image := testImage(t, blobs{}, Host(), ocispec.MediaTypeImageManifest)
	for _, ref := range []string{mirror + "/both", origin + "/both", origin + "/app"} {
		if _, err := plain.Push(t.Context(), ref, image, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	c := New(Options{Mirrors: map[string][]string{origin: {"http://127.0.0.1:1", "http://" + mirror}}})
	for _, ref := range []string{"/both", "/app"} {
		asked.Store(0)
		found, err := c.Resolve(t.Context(), origin+ref, ocispec.Platform{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if found.Name != origin+ref || asked.Load() == 0 {
			t.Errorf("%s: found %s, mirror asked %d times", ref, found.Name, asked.Load())
		}
		if _, err := found.ReadBlob(t.Context(), found.Manifest.Config, 1<<20); err != nil {
			t.Error(err)
		}
	}
}

func TestInsecure(t *testing.T) {
	c := New(Options{Insecure: []string{"registry.example:5000", "10.1.0.0/16", "Plain.Example"}})
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:5000": true, "127.8.8.8": true, "[::1]:5000": true,
		"registry.example:5000": true, "plain.example": true, "plain.example:81": true,
		"10.1.2.3:5000": true, "10.2.0.1": false, "192.168.0.1:5000": false, "registry.invalid": false,
	} {
		if got := c.IsInsecure(t.Context(), host); got != want {
			t.Errorf("%s: %v: expected %v", host, got, want)
		}
	}
	for _, o := range []Options{
		{Insecure: []string{"http://x"}}, {Insecure: []string{""}},
		{Mirrors: map[string][]string{"docker.io": {"mirror.example"}}},
		{Mirrors: map[string][]string{"docker.io": {"https://mirror.example/path"}}},
	} {
		if err := o.Validate(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// Plain HTTP needs permission: an address of a private network is not enough.
func TestPlainHTTPIsRefused(t *testing.T) {
	g := guard{inner: http.DefaultTransport}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://10.0.0.1/v2/", nil)
	if _, err := g.RoundTrip(req); err == nil || !strings.Contains(err.Error(), "insecure-registry") { //nolint:bodyclose // there is none
		t.Errorf("%v", err)
	}
}

func TestSearch(t *testing.T) {
	host, c := serve(t, nil), New(Options{})
	for _, repo := range []string{"/team/app", "/team/apple", "/other"} {
		if _, err := c.Push(t.Context(), host+repo, testImage(t, blobs{}, Host(), ocispec.MediaTypeImageManifest), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.Search(t.Context(), host+"/app", 25, nil)
	want := []wire.SearchResult{{Name: host + "/team/app"}, {Name: host + "/team/apple"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if got, err := c.Search(t.Context(), host+"/app", 1, nil); err != nil || len(got) != 1 {
		t.Errorf("%v %v", got, err)
	}
	hub := serve(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/search" && r.URL.Query().Get("q") == "redis" {
				_, _ = io.WriteString(w, `{"results":[{"name":"redis","star_count":9,"is_official":true}]}`)
			}
		})
	})
	if got, err := c.Search(t.Context(), hub+"/redis", 25, nil); err != nil || len(got) != 1 || got[0].StarCount != 9 {
		t.Errorf("%v %v", got, err)
	}
}
