package server_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/cmd/sampan-registry/server"
	"github.com/sampan-project/sampan/cmd/sampan-registry/store"
)

// client speaks to a registry of its own.
type client struct {
	t       *testing.T
	handler http.Handler
	store   *store.Store
}

func newClient(t *testing.T, o server.Options) client {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	o.Log = slog.New(slog.DiscardHandler)
	return client{t, server.New(s, o), s}
}

func (c client) do(method, path, body string, header ...string) *httptest.ResponseRecorder {
	c.t.Helper()
	r := httptest.NewRequestWithContext(c.t.Context(), method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	return w
}

// want fails the test unless the answer has the status, and the code in its errors if that is not "".
func (c client) want(answer *httptest.ResponseRecorder, status int, code string) string {
	c.t.Helper()
	body := answer.Body.String()
	if answer.Code != status || !strings.Contains(body, code) {
		c.t.Errorf("status %d %s: expected %d %s", answer.Code, body, status, code)
	}
	return body
}

func (c client) blob(name, content string) digest.Digest {
	c.t.Helper()
	d := digest.FromString(content)
	c.want(c.do("POST", "/v2/"+name+"/blobs/uploads/?digest="+d.String(), content), http.StatusCreated, "")
	return d
}

// image pushes a manifest with one blob under a tag.
func (c client) image(name, tag string, change func(*ocispec.Manifest)) digest.Digest {
	c.t.Helper()
	d := c.blob(name, "{}")
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: d, Size: 2}, Layers: []ocispec.Descriptor{}}
	m.SchemaVersion = 2
	if change != nil {
		change(&m)
	}
	data, err := json.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	resp := c.do("PUT", "/v2/"+name+"/manifests/"+tag, string(data), "Content-Type", ocispec.MediaTypeImageManifest)
	c.want(resp, http.StatusCreated, "")
	if m.Subject != nil && resp.Header().Get("OCI-Subject") != m.Subject.Digest.String() {
		c.t.Errorf("OCI-Subject %q: expected %s", resp.Header().Get("OCI-Subject"), m.Subject.Digest)
	}
	return digest.FromBytes(data)
}

func TestUploads(t *testing.T) {
	c := newClient(t, server.Options{})
	resp := c.do("POST", "/v2/a/b/blobs/uploads/", "")
	c.want(resp, http.StatusAccepted, "")
	at := resp.Header().Get("Location")
	c.want(c.do("PATCH", at, "hello", "Content-Range", "0-4"), http.StatusAccepted, "")
	c.want(c.do("PATCH", at, "xx", "Content-Range", "7-8"), http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
	c.want(c.do("PATCH", at, "xx", "Content-Range", "5-9"), http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
	if resp := c.do("GET", at, ""); resp.Header().Get("Range") != "0-4" || resp.Code != http.StatusNoContent {
		t.Errorf("%d, range %q: expected 204, 0-4", resp.Code, resp.Header().Get("Range"))
	}
	c.want(c.do("PATCH", strings.Replace(at, "/a/b/", "/a/c/", 1), "x"), http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
	c.want(c.do("PATCH", at, " world", "Content-Range", "5-10"), http.StatusAccepted, "")
	d := digest.FromString("hello world")
	c.want(c.do("PUT", at+"?digest="+d.String(), ""), http.StatusCreated, "")
	if got := c.want(c.do("GET", "/v2/a/b/blobs/"+d.String(), ""), http.StatusOK, ""); got != "hello world" {
		t.Errorf("%q: expected hello world", got)
	}
	if got := c.want(c.do("GET", "/v2/a/b/blobs/"+d.String(), "", "Range", "bytes=6-8"), http.StatusPartialContent, ""); got != "wor" {
		t.Errorf("%q: expected wor", got)
	}
	// Its digest opens it only where it was pushed, and where it is mounted from there.
	c.want(c.do("GET", "/v2/a/c/blobs/"+d.String(), ""), http.StatusNotFound, "BLOB_UNKNOWN")
	c.want(c.do("POST", "/v2/a/c/blobs/uploads/?mount="+d.String()+"&from=a/x", ""), http.StatusAccepted, "")
	c.want(c.do("POST", "/v2/a/c/blobs/uploads/?mount="+d.String()+"&from=../blobs", ""), http.StatusAccepted, "")
	c.want(c.do("POST", "/v2/a/c/blobs/uploads/?mount="+d.String()+"&from=a/b", ""), http.StatusCreated, "")
	c.want(c.do("GET", "/v2/a/c/blobs/"+d.String(), ""), http.StatusOK, "hello")
}

func TestContentOfAnotherDigestIsThrownAway(t *testing.T) {
	c := newClient(t, server.Options{})
	d := digest.FromString("right")
	c.want(c.do("POST", "/v2/a/blobs/uploads/?digest="+d.String(), "wrong"), http.StatusBadRequest, "DIGEST_INVALID")
	c.want(c.do("GET", "/v2/a/blobs/"+d.String(), ""), http.StatusNotFound, "BLOB_UNKNOWN")
}

func TestHostileRequests(t *testing.T) {
	c := newClient(t, server.Options{})
	config := c.blob("a", "{}")
	index := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`
	image := `{"schemaVersion":2,"config":{"digest":"` + config.String() + `","size":2},"layers":[]`
	for name, tt := range map[string]struct {
		method, path, body, mediaType string
		status                        int
		code                          string
	}{
		"name above the root": {"GET", "/v2/../x/tags/list", "", "", 400, "NAME_INVALID"},
		"name of a drawer":    {"GET", "/v2/a/_tags/tags/list", "", "", 400, "NAME_INVALID"},
		"long name":           {"GET", "/v2/" + strings.Repeat("a", 300) + "/tags/list", "", "", 400, "NAME_INVALID"},
		"digest":              {"GET", "/v2/a/blobs/sha256:..", "", "", 400, "DIGEST_INVALID"},
		"algorithm":           {"GET", "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", "", "", 400, "DIGEST_INVALID"},
		"method":              {"TRACE", "/v2/a/tags/list", "", "", 405, "UNSUPPORTED"},
		"page":                {"GET", "/v2/a/tags/list?n=-1", "", "", 400, "PAGINATION_NUMBER_INVALID"},
		"no manifest":         {"PUT", "/v2/a/manifests/t", "nothing", ocispec.MediaTypeImageManifest, 400, "MANIFEST_INVALID"},
		"other type":          {"PUT", "/v2/a/manifests/t", image + "}", "text/plain", 400, "MANIFEST_INVALID"},
		"no type":             {"PUT", "/v2/a/manifests/t", image + "}", "", 400, "MANIFEST_INVALID"},
		"index as image":      {"PUT", "/v2/a/manifests/t", index, ocispec.MediaTypeImageManifest, 400, "MANIFEST_INVALID"},
		"says another type":   {"PUT", "/v2/a/manifests/t", image + `,"mediaType":"` + ocispec.MediaTypeImageIndex + `"}`, ocispec.MediaTypeImageManifest, 400, "MANIFEST_INVALID"},
		"both":                {"PUT", "/v2/a/manifests/t", image + `,"manifests":[]}`, ocispec.MediaTypeImageManifest, 400, "MANIFEST_INVALID"},
		"too large":           {"PUT", "/v2/a/manifests/t", strings.Repeat(" ", 5<<20), ocispec.MediaTypeImageManifest, 413, "SIZE_INVALID"},
		"other digest":        {"PUT", "/v2/a/manifests/" + config.String(), index, ocispec.MediaTypeImageIndex, 400, "DIGEST_INVALID"},
		"blob of another":     {"PUT", "/v2/b/manifests/t", image + "}", ocispec.MediaTypeImageManifest, 404, "MANIFEST_BLOB_UNKNOWN"},
		"subject":             {"PUT", "/v2/a/manifests/t", image + `,"subject":{"digest":"sha256:/../../x"}}`, ocispec.MediaTypeImageManifest, 400, "MANIFEST_INVALID"},
		"tag":                 {"PUT", "/v2/a/manifests/" + digest.FromString(index).String() + "?tag=..%2Fx", index, ocispec.MediaTypeImageIndex, 400, "TAG_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			c := client{t, c.handler, c.store}
			c.want(c.do(tt.method, tt.path, tt.body, "Content-Type", tt.mediaType), tt.status, tt.code)
		})
	}
	c.want(c.do("GET", "/v2/a/tags/list", ""), http.StatusOK, `"tags":[]`)
}

func TestListsHavePages(t *testing.T) {
	c := newClient(t, server.Options{})
	for _, tag := range []string{"c", "a", "b"} {
		c.image("team/app", tag, nil)
	}
	c.image("other", "1", nil)
	resp := c.do("GET", "/v2/team/app/tags/list?n=2", "")
	c.want(resp, http.StatusOK, `["a","b"]`)
	link, _, _ := strings.Cut(strings.TrimPrefix(resp.Header().Get("Link"), "<"), ">")
	resp = c.do("GET", link, "")
	c.want(resp, http.StatusOK, `["c"]`)
	if resp.Header().Get("Link") != "" {
		t.Errorf("the last page has a link: %s", resp.Header().Get("Link"))
	}
	c.want(c.do("GET", "/v2/_catalog", ""), http.StatusOK, `{"repositories":["other","team/app"]}`)
	c.want(c.do("GET", "/v2/_catalog?n=1&last=other", ""), http.StatusOK, `{"repositories":["team/app"]}`)
	c.want(c.do("GET", "/v2/nothing/tags/list", ""), http.StatusNotFound, "NAME_UNKNOWN")
}

func TestReferrers(t *testing.T) {
	c := newClient(t, server.Options{})
	subject := c.image("app", "1", nil)
	refer := func(kind string) func(*ocispec.Manifest) {
		return func(m *ocispec.Manifest) {
			m.Subject = &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject, Size: 2}
			m.ArtifactType, m.Annotations = kind, map[string]string{"k": kind}
		}
	}
	signature := c.image("app", "sig", refer("application/x-signature"))
	c.image("app", "sbom", refer("application/x-sbom"))
	list := func(query string) (found []string, resp *httptest.ResponseRecorder) {
		resp = c.do("GET", "/v2/app/referrers/"+subject.String()+query, "")
		var index ocispec.Index
		if err := json.NewDecoder(resp.Body).Decode(&index); err != nil {
			t.Fatal(err)
		}
		for _, d := range index.Manifests {
			found = append(found, d.ArtifactType+" "+d.Annotations["k"])
		}
		return found, resp
	}
	if all, _ := list(""); len(all) != 2 {
		t.Errorf("%q: expected two referrers", all)
	}
	some, resp := list("?artifactType=application/x-signature")
	if diff := cmp.Diff([]string{"application/x-signature application/x-signature"}, some); diff != "" || resp.Header().Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("filters %q: %s", resp.Header().Get("OCI-Filters-Applied"), diff)
	}
	c.want(c.do("DELETE", "/v2/app/manifests/"+signature.String(), ""), http.StatusAccepted, "")
	if all, _ := list(""); len(all) != 1 {
		t.Errorf("%q: expected one referrer after the other was deleted", all)
	}
}

func TestWhatIsNotPermitted(t *testing.T) {
	for name, tt := range map[string]struct {
		o      server.Options
		method string
	}{
		"read-only push":   {server.Options{ReadOnly: true}, "POST"},
		"read-only delete": {server.Options{ReadOnly: true}, "DELETE"},
		"no deletion":      {server.Options{NoDelete: true}, "DELETE"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, tt.o)
			path := "/v2/a/manifests/1"
			if tt.method == "POST" {
				path = "/v2/a/blobs/uploads/"
			}
			c.want(c.do(tt.method, path, ""), http.StatusMethodNotAllowed, "UNSUPPORTED")
		})
	}
}

type allowed map[string]string

func (a allowed) Allowed(user, password string) bool { return password != "" && a[user] == password }

func TestEveryPathAsksWhoItIs(t *testing.T) {
	c := newClient(t, server.Options{Access: allowed{"me": "secret"}})
	for _, path := range []string{"/", "/v2/", "/v2/_catalog", "/v2/a/tags/list", "/v2/a/blobs/uploads/"} {
		resp := c.do("GET", path, "")
		c.want(resp, http.StatusUnauthorized, "UNAUTHORIZED")
		if resp.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", path)
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v2/", &bytes.Buffer{})
	r.SetBasicAuth("me", "secret")
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	c.want(w, http.StatusOK, "{}")
}
