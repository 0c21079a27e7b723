package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// plainly fails the test unless err is a short line with the words.
func plainly(t *testing.T, err error, words string) {
	t.Helper()
	switch {
	case err == nil || !strings.Contains(err.Error(), words):
		t.Errorf("got %v: expected %q in it", err, words)
	case strings.ContainsAny(err.Error(), "\n\r\x1b\u009b\u202e") || len(err.Error()) > 2048:
		t.Errorf("the error is no short line: %.300q (%d bytes)", err, len(err.Error()))
	}
}

// evil is a registry that answers what a test says, and /v2/ as it should be.
func evil(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	return serve(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				answer(w, r)
			}
		})
	})
}

func TestConfusedManifests(t *testing.T) {
	image, index := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex
	d := digest.FromString("x").String()
	child := `{"schemaVersion":2,"config":{"digest":"` + d + `","size":1},"layers":[]}`
	listed := func(kind string, size int) string {
		return fmt.Sprintf(`{"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, kind, digest.FromString(child), size)
	}
	nested := `{"manifests":[]}`
	chain := map[string]string{}
	for range maxNesting + 2 {
		chain[digest.FromString(nested).String()] = nested
		nested = fmt.Sprintf(`{"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, index, digest.FromString(nested), len(nested))
	}
	for name, tt := range map[string]struct{ announced, body, words string }{
		"index and image":                {image, `{"config":{"digest":"` + d + `"},"layers":[],"manifests":[{}]}`, "as an index, and config or layers"},
		"image and index":                {index, `{"manifests":[],"layers":[]}`, "as an index, and config or layers"},
		"says another type":              {image, `{"mediaType":"` + index + `","manifests":[]}`, "announced as"},
		"schema 1 and 2":                 {image, `{"schemaVersion":1,"fsLayers":[{}],"config":{},"layers":[]}`, "schema version 1"},
		"schema 1 in disguise":           {"text/plain", `{"schemaVersion":1,"fsLayers":[]}`, "schema version 1"},
		"child of another size":          {index, listed(image, len(child)+1), "its index says"},
		"child of another type":          {index, listed(index, len(child)), "its index says"},
		"nests deep":                     {index, nested, "expected that of an image"},
		"media type with escapes":        {image, `{"mediaType":"\u001b[2J\n\u202ex"}`, "media type"},
		"media type of a megabyte":       {image, `{"mediaType":"` + strings.Repeat("m", 1<<20) + `"}`, "media type"},
		"digest of a megabyte":           {image, `{"config":{"digest":"` + strings.Repeat("m", 1<<20) + `"}}`, "digest"},
		"unknown field of megabytes":     {image, `{"x":"` + strings.Repeat("m", 4<<20) + `"}`, "at most"},
		"annotations without end":        {image, `{"annotations":{` + strings.TrimSuffix(strings.Repeat(`"k":"v",`, 600<<10), ",") + `}}`, "at most"},
		"nests as JSON":                  {image, strings.Repeat("[", 1<<20), ""},
		"layer of the size of the earth": {image, `{"config":{"digest":"` + d + `","size":1},"layers":[{"digest":"` + d + `","size":9223372036854775807}]}`, "size 9223372036854775807"},
		"size that is no number":         {image, `{"config":{"digest":"` + d + `","size":1e99}}`, "cannot unmarshal"},
		"wrong digest":                   {index, listed(image, len(child)) + " ", "verification failed"},
	} {
		t.Run(name, func(t *testing.T) {
			host := evil(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", tt.announced)
				body := tt.body
				if at := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]; strings.HasPrefix(at, "sha256:") {
					if body = chain[at]; body == "" {
						w.Header().Set("Content-Type", image)
						body = child
					} else {
						w.Header().Set("Content-Type", index)
					}
					if name == "wrong digest" {
						body += " "
					}
				}
				_, _ = io.WriteString(w, body)
			})
			_, err := New(Options{}).Resolve(t.Context(), host+"/app", ocispec.Platform{}, nil)
			plainly(t, err, tt.words)
		})
	}
}

// zeros writes until who asked has gone.
func zeros(w http.ResponseWriter, text string) {
	for block := []byte(strings.Repeat(text, 64<<10/len(text))); ; {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// Whatever is asked, an answer that has no end is left.
func TestEndlessAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		answer http.HandlerFunc // also of /v2/
		ask    func(c *Client, host string) error
		words  string
	}{
		"base":     {func(w http.ResponseWriter, _ *http.Request) { zeros(w, "x") }, resolve, "at most"},
		"manifest": {evilBase(func(w http.ResponseWriter, _ *http.Request) { zeros(w, " ") }), resolve, "at most"},
		"error": {evilBase(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			zeros(w, "x")
		}), resolve, ""},
		"tags": {evilBase(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"tags":["`)
			zeros(w, "x")
		}), tagsOf, "more than"},
		"pages without tags": {evilBase(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "<"+r.URL.Path+`?last=x>; rel="next"`)
			_, _ = io.WriteString(w, `{"tags":[]}`)
		}), tagsOf, "without end"},
		"pages with the same tags": {evilBase(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "<"+r.URL.Path+`?last=x>; rel="next"`)
			_, _ = io.WriteString(w, `{"tags":["a","b"]}`)
		}), tagsOf, "more than 100 tags"},
		"page on another host": {evilBase(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", `<https://169.254.169.254/latest/meta-data>; rel="next"`)
			_, _ = io.WriteString(w, `{"tags":["a"]}`)
		}), tagsOf, "does not match"},
		"page that is no address": {evilBase(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", `<:\x00>; rel="next"`)
			_, _ = io.WriteString(w, `{"tags":["a"]}`)
		}), tagsOf, "missing protocol scheme"},
		"search": {evilBase(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"results":[{"name":"`)
			zeros(w, "x")
		}), search, "EOF"},
		"catalogue": {evilBase(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "_catalog") {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			_, _ = io.WriteString(w, `{"repositories":["`)
			zeros(w, "x")
		}), search, "more than"},
		"token": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				_, _ = io.WriteString(w, `{"token":"`)
				zeros(w, "x")
				return
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, resolve, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := serve(t, func(http.Handler) http.Handler { return tt.answer })
			plainly(t, tt.ask(New(Options{}), host), tt.words)
		})
	}
}

func evilBase(answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			answer(w, r)
		}
	}
}

func resolve(c *Client, host string) error {
	_, err := c.Resolve(context.Background(), host+"/app", ocispec.Platform{}, nil)
	return err
}

func tagsOf(c *Client, host string) error {
	_, err := c.Tags(context.Background(), host+"/app", 100, nil)
	return err
}

func search(c *Client, host string) error {
	_, err := c.Search(context.Background(), host+"/app", 10, nil)
	return err
}

// The catalogue's pages end, and what it says is text.
func TestCatalogueWithoutEnd(t *testing.T) {
	var pages atomic.Int32
	host := evil(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "_catalog") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		pages.Add(1)
		w.Header().Set("Link", `</v2/_catalog?last=x>; rel="next"`)
		_, _ = io.WriteString(w, `{"repositories":["app\u001b[2J`+strings.Repeat(`","app`, 2000)+`"]}`)
	})
	found, err := New(Options{}).Search(t.Context(), host+"/app", 3, nil)
	if err != nil || len(found) != 3 || pages.Load() > 10 {
		t.Errorf("%d pages, found %+v, %v", pages.Load(), found, err)
	}
	for _, f := range found {
		if strings.ContainsAny(f.Name+f.Description, "\x1b\n") {
			t.Errorf("it shows %q", f.Name)
		}
	}
}

// An answer that drips ends too.
func TestDrippingAnswer(t *testing.T) {
	stop := make(chan struct{})
	host := evil(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, " ")
		w.(http.Flusher).Flush()
		<-stop
	})
	t.Cleanup(func() { close(stop) })
	b := &bounded{http.DefaultTransport, maxAnswer, 50 * time.Millisecond}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/app/tags/list", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	plainly(t, err, "does not come to its end")
}

// secretive notes where a login goes to.
type secretive struct {
	inner http.RoundTripper
	own   string // the host that may have it

	mu    sync.Mutex
	asked []string
	leaks []string
}

func (s *secretive) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.asked = append(s.asked, r.URL.Scheme+"://"+r.URL.Host)
	body := ""
	if r.GetBody != nil {
		if b, err := r.GetBody(); err == nil {
			data, _ := io.ReadAll(b) //nolint:errcheck // of a test's own body
			body = string(data)
		}
	}
	if r.URL.Host != s.own || r.URL.Scheme != "https" {
		if hasSecret(r) || strings.Contains(r.URL.String()+body+r.Header.Get("Referer"), "secret") {
			s.leaks = append(s.leaks, r.URL.String())
		}
	}
	s.mu.Unlock()
	return s.inner.RoundTrip(r)
}

// hasSecret reports whether a request has the login; what a redirect says itself is none.
func hasSecret(r *http.Request) bool {
	_, password, _ := r.BasicAuth()
	return password == "secret" || strings.Contains(r.Header.Get("Authorization"), "secret") || r.Header.Get("Cookie") != ""
}

// A registry with TLS that tries to have the login sent elsewhere, in every answer that may name a place.
func TestLoginStaysAtHome(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="please"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(elsewhere.Close)
	tlsElsewhere := httptest.NewTLSServer(elsewhere.Config.Handler)
	t.Cleanup(tlsElsewhere.Close)
	for _, login := range []*wire.AuthConfig{{Username: "user", Password: "secret"}, {IdentityToken: "secret"}, {RegistryToken: "secret"}} {
		for name, challenge := range map[string]string{
			"realm in plain HTTP":      `Bearer realm="` + elsewhere.URL + `/token",service="x"`,
			"realm with a user":        `Bearer realm="` + strings.Replace(tlsElsewhere.URL, "//", "//user:word@", 1) + `/token"`,
			"realm of the metadata":    `Bearer realm="https://169.254.169.254/token"`,
			"realm of this machine":    `Bearer realm="` + tlsElsewhere.URL + `/token"`,
			"realm of a file":          `Bearer realm="file:///etc/passwd"`,
			"no realm":                 `Bearer service="x"`,
			"quotes without end":       `Bearer realm="https://x`,
			"another scheme":           `Negotiate`,
			"two challenges":           `Negotiate, Bearer realm="` + elsewhere.URL + `/token"`,
			"redirect to plain HTTP":   "",
			"redirect to another host": "",
			"redirect with a user":     "",
		} {
			t.Run(fmt.Sprintf("%s %v", name, login.Username+login.IdentityToken), func(t *testing.T) {
				home := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					to := map[string]string{
						"redirect to plain HTTP": elsewhere.URL, "redirect to another host": tlsElsewhere.URL,
						"redirect with a user": strings.Replace(tlsElsewhere.URL, "//", "//user:word@", 1),
					}[name]
					if to != "" {
						http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
						return
					}
					w.Header().Set("WWW-Authenticate", challenge)
					w.WriteHeader(http.StatusUnauthorized)
				}))
				t.Cleanup(home.Close)
				host := strings.TrimPrefix(home.URL, "https://")
				c := New(Options{})
				watch := &secretive{inner: home.Client().Transport, own: host}
				tr := watch.inner.(*http.Transport).Clone()
				tr.TLSClientConfig.InsecureSkipVerify = true //nolint:gosec // the test's own servers
				watch.inner = tr
				c.verified, c.trusting = watch, watch
				at := endpoint{host: host}
				named, err := parse(host + "/app")
				if err != nil {
					t.Fatal(err)
				}
				if at.auth, err = authenticator(login); err != nil {
					t.Fatal(err)
				}
				repo, err := c.connect(t.Context(), named, at, "pull")
				if err == nil {
					_, _, err = repo.manifest(t.Context(), "latest")
				}
				if err == nil {
					t.Error("it worked")
				} else {
					plainly(t, otherError(err), "")
				}
				if len(watch.leaks) > 0 {
					t.Errorf("the login went to %q", watch.leaks)
				}
				for _, asked := range watch.asked {
					if strings.HasPrefix(asked, "http://") {
						t.Errorf("it was asked in plain HTTP: %s", asked)
					}
				}
			})
		}
	}
}

// The place of an upload may be on another host; the login does not go there, nor the blob to where only the
// engine can go.
func TestUploadsElsewhere(t *testing.T) {
	for place, ok := range map[string]bool{
		"/v2/app/blobs/uploads/1?_state=x": true, "https://cdn.example/x": true, "https://home.example:5000/x": true,
		"http://home.example:5000/x": false, "http://cdn.example/x": false, "https://169.254.169.254/x": false, "https://127.0.0.1/x": false,
		"https://localhost/x": false, "https://10.0.0.1:6443/x": false, "https://[fd00::1]/x": false, "https://[::1]/x": false,
		"file:///etc/passwd": false, "https://user:word@192.168.0.1/": false,
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://home.example:5000/v2/app/blobs/uploads/", nil)
		to, err := req.URL.Parse(place)
		if err != nil {
			t.Fatal(err)
		}
		if err := follows(req.URL, to); (err == nil) != ok {
			t.Errorf("%s: %v", place, err)
		} else if err != nil {
			plainly(t, err, "upload")
		}
	}
	var reached atomic.Int32
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(inside.Close)
	host := evil(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", inside.URL+"/internal")
		w.WriteHeader(http.StatusAccepted)
	})
	c, b := New(Options{}), blobs{}
	image := testImage(t, b, Host(), ocispec.MediaTypeImageManifest)
	_, err := c.Push(t.Context(), host+"/app", image, &wire.AuthConfig{Username: "user", Password: "secret"}, nil)
	if err == nil {
		t.Error("pushed")
	}
	repo, _, err := c.home(t.Context(), mustParse(t, host+"/app"), "pull", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.mountBlob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}, "other"); err != nil {
		t.Error(err)
	}
	err = repo.copyBlob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}, repo)
	plainly(t, err, "sends the upload to")
	if n := reached.Load(); n != 0 {
		t.Errorf("what only this machine can reach was asked %d times", n)
	}
}

// reply answers without a network; the fuzzer says what.
type reply struct {
	status          int
	challenge, link string
	kind, body      string
	asked           int
	strangers       []string
}

func (f *reply) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.asked++; f.asked > 200 {
		return nil, errors.New("asked too often")
	}
	if r.URL.Host != "home.example" && hasSecret(r) && !strings.Contains(f.challenge, r.URL.Host) {
		f.strangers = append(f.strangers, r.URL.String())
	}
	h := http.Header{"Content-Type": {f.kind}}
	status := http.StatusOK
	if f.challenge != "" && r.Header.Get("Authorization") == "" && r.URL.Host == "home.example" {
		h.Set("Www-Authenticate", f.challenge)
		status = http.StatusUnauthorized
	} else if r.URL.Path != "/v2/" {
		h.Set("Link", f.link)
		h.Set("Location", f.link)
		status = f.status
	}
	return &http.Response{
		StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(f.body)), Request: r,
		ContentLength: int64(len(f.body)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}, nil
}

// FuzzAnswers has the client read what a registry may say in headers and bodies.
func FuzzAnswers(f *testing.F) {
	image := `{"schemaVersion":2,"config":{"digest":"` + digest.FromString("x").String() + `","size":1},"layers":[]}`
	f.Add(200, `Bearer realm="https://auth.example/token",service="s",scope="repository:app:pull"`, `</v2/app/tags/list?last=b>; rel="next"`, ocispec.MediaTypeImageManifest, image)
	f.Add(200, `Basic realm="x", Negotiate`, `<https://evil.example/>`, ocispec.MediaTypeImageIndex, `{"manifests":[{"platform":{"os":"linux","architecture":"amd64"},"digest":"sha256:1"}],"tags":["a"],"token":"t"}`)
	f.Add(307, "", "https://user:word@evil.example/", "text/plain", `{"errors":[{"code":"DENIED","message":"no\n\u001b[2J"}]}`)
	f.Add(401, "Bearer realm=", "<", "", "")
	f.Add(385, "", "", "", `{"errors":[{"code":"\u001b"}]}`)
	f.Fuzz(func(t *testing.T, status int, challenge, link, kind, body string) {
		if status < 200 || status > 599 {
			status = 200 + (status&0x7fffffff)%400
		}
		answers := &reply{status: status, challenge: challenge, link: link, kind: kind, body: body}
		c := New(Options{})
		c.verified, c.trusting = answers, answers
		login := &wire.AuthConfig{Username: "user", Password: "secret"}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // a registry may wish to be asked again later
		defer cancel()
		for _, ask := range []func() error{
			func() error { _, err := c.Resolve(ctx, "home.example/app", ocispec.Platform{}, login); return err },
			func() error { _, err := c.Tags(ctx, "home.example/app", 50, login); return err },
			func() error { _, err := c.Search(ctx, "home.example/app", 5, login); return err },
		} {
			answers.asked = 0
			err := ask()
			if err != nil && (strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 8192) {
				t.Errorf("the error is no short line: %.300q (%d bytes)", err, len(err.Error()))
			}
			if err != nil && fault.ClassOf(err) == fault.Internal && ctx.Err() == nil {
				t.Logf("class internal: %v", err)
			}
		}
		if len(answers.strangers) > 0 {
			t.Errorf("the login went to %q", answers.strangers)
		}
	})
}

// FuzzManifest reads what may be a manifest or an index.
func FuzzManifest(f *testing.F) {
	d := digest.FromString("x").String()
	for _, body := range []string{
		`{"schemaVersion":2,"config":{"digest":"` + d + `","size":1},"layers":[{"digest":"` + d + `","size":2}]}`,
		`{"manifests":[{"digest":"` + d + `","size":2,"platform":{"os":"linux","architecture":"arm","variant":"v6"}}]}`,
		`{"schemaVersion":1}`, `{"manifests":[{"platform":{"os":"linux","architecture":"arm","variant":""}},{}]}`,
	} {
		f.Add(ocispec.MediaTypeImageManifest, []byte(body))
	}
	f.Fuzz(func(t *testing.T, header string, raw []byte) {
		i := Image{Name: "app", Digest: digest.FromBytes(raw), Raw: raw}
		i.Descriptor.MediaType = mediaType(header, raw)
		if err := CheckKind(header, raw); err != nil {
			plainly(t, fault.New(fault.Invalid, "%s", oneLine(err.Error())), "")
		}
		if i.decode() == nil {
			for _, l := range append(i.Manifest.Layers, i.Manifest.Config) {
				if l.Digest.Validate() != nil || l.Size < 0 || l.Size > maxBlob {
					t.Errorf("a blob %+v", l)
				}
			}
		}
		_ = noDuplicates(raw)
		var index ocispec.Index
		if json.Unmarshal(raw, &index) == nil {
			for _, p := range []string{"linux/arm/v7", "linux/amd64"} {
				want, err := ParsePlatform(p)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = choose(index.Manifests, want)
			}
		}
	})
}

func mustParse(t *testing.T, ref string) reference.Named {
	t.Helper()
	named, err := parse(ref)
	if err != nil {
		t.Fatal(err)
	}
	return named
}
