package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/cmd/sampan-registry/server"
)

// Names, digests and uploads become paths; whatever they are, none leads out of a repository, and what is refused
// is refused in few words.
func TestPathsStayInside(t *testing.T) {
	c := newClient(t, server.Options{})
	secret := c.blob("private/app", "secret")
	c.image("private/app", "1", nil)
	tags := c.want(c.do("GET", "/v2/_catalog", ""), http.StatusOK, "private/app")
	for _, name := range []string{
		"..", ".", "a/..", "../../etc", "a/../private/app", "a//b", "/a", "a/", "_blobs", "private/app/_blobs", "A", "a b", "a%00b", "%2e%2e/a", "a/%2e%2e/private/app",
		"a\\..\\b", "private/app/_manifests/sha256", strings.Repeat("a/", 150) + "a", "a/" + strings.Repeat("b", 300), "\u202ea",
	} {
		for _, path := range []string{"/blobs/" + secret.String(), "/manifests/1", "/tags/list", "/referrers/" + secret.String(), "/blobs/uploads/"} {
			method := "GET"
			if strings.HasSuffix(path, "/") {
				method = "POST"
			}
			target := "/v2/" + strings.NewReplacer(" ", "%20", "\\", "%5c", "\u202e", "%E2%80%AE").Replace(name) + path
			if resp := c.do(method, target, ""); resp.Code < 400 || strings.Contains(resp.Body.String(), "secret") {
				t.Errorf("%s %s: status %d %s", method, target, resp.Code, resp.Body)
			}
		}
	}
	for _, id := range []string{"..", "../../blobs", "A/../B", "%2e%2e", strings.Repeat("A", 65), "lock", ""} {
		for _, method := range []string{"PATCH", "PUT", "DELETE"} {
			if resp := c.do(method, "/v2/private/app/blobs/uploads/"+id+"?digest="+secret.String(), "x"); resp.Code < 400 {
				t.Errorf("%s upload %q: status %d", method, id, resp.Code)
			}
		}
	}
	if again := c.want(c.do("GET", "/v2/_catalog", ""), http.StatusOK, "private/app"); again != tags {
		t.Errorf("the catalogue was %s and is %s", tags, again)
	}
}

// A client cannot begin uploads until the registry has no files left.
func TestUploadsWithoutEnd(t *testing.T) {
	c := newClient(t, server.Options{})
	begun := 0
	var last string
	for range 1000 {
		resp := c.do("POST", "/v2/a/blobs/uploads/", "")
		if resp.Code != http.StatusAccepted {
			c.want(resp, http.StatusTooManyRequests, "TOOMANYREQUESTS")
			break
		}
		begun++
		last = resp.Header().Get("Location")
	}
	if begun == 1000 {
		t.Error("there is no end")
	}
	c.want(c.do("DELETE", last, ""), http.StatusNoContent, "")
	c.want(c.do("POST", "/v2/a/blobs/uploads/", ""), http.StatusAccepted, "")
}

func TestRefusalsAreShort(t *testing.T) {
	c := newClient(t, server.Options{})
	long := strings.Repeat("x", 1<<20)
	for name, body := range map[string]string{
		"digest":     `{"schemaVersion":2,"config":{"digest":"` + long + `"},"layers":[]}`,
		"media type": `{"schemaVersion":2,"mediaType":"` + long + `","layers":[]}`,
		"subject":    `{"schemaVersion":2,"config":{"digest":"` + digest.FromString("x").String() + `"},"subject":{"digest":"` + long + `"}}`,
		"nested":     strings.Repeat("[", 1<<20),
	} {
		resp := c.do("PUT", "/v2/a/manifests/t", body, "Content-Type", ocispec.MediaTypeImageManifest)
		if c.want(resp, http.StatusBadRequest, "MANIFEST_INVALID"); resp.Body.Len() > 4096 {
			t.Errorf("%s: the refusal has %d bytes", name, resp.Body.Len())
		}
	}
}

// The annotations of all referrers are one answer.
func TestReferrersWithoutEnd(t *testing.T) {
	c := newClient(t, server.Options{})
	subject := c.image("app", "1", nil)
	for _, tag := range []string{"a", "b", "c"} {
		c.image("app", tag, func(m *ocispec.Manifest) {
			m.Subject = &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject, Size: 2}
			m.ArtifactType, m.Annotations = "application/x-"+tag, map[string]string{"k": strings.Repeat("x", 1<<20)}
		})
	}
	resp := c.do("GET", "/v2/app/referrers/"+subject.String(), "")
	if body := c.want(resp, http.StatusOK, "application/x-b"); len(body) > 64<<10 {
		t.Errorf("the answer has %d bytes", len(body))
	}
}

// Ranges that overlap do not multiply what is sent.
func TestManyRanges(t *testing.T) {
	c := newClient(t, server.Options{})
	d := c.blob("a", strings.Repeat("x", 10_000))
	for _, ranges := range []string{
		"bytes=" + strings.TrimSuffix(strings.Repeat("0-,", 5000), ","), "bytes=9223372036854775807-", "bytes=-9223372036854775808", "bytes=5-1", "bytes=a-b",
	} {
		if resp := c.do("GET", "/v2/a/blobs/"+d.String(), "", "Range", ranges); resp.Body.Len() > 20_000 {
			t.Errorf("%.40s: %d bytes", ranges, resp.Body.Len())
		}
	}
	resp := c.do("POST", "/v2/a/blobs/uploads/", "")
	for _, ranges := range []string{"-1-5", "9223372036854775807-9223372036854775807", "0-9223372036854775807", "5", "a-b"} {
		c.want(c.do("PATCH", resp.Header().Get("Location"), "x", "Content-Range", ranges), http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
	}
}
