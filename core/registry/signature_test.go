package registry

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func attached(t *testing.T, payloads ...string) []byte {
	t.Helper()
	var list []attachment
	for _, p := range payloads {
		a, err := newAttachment(wire.Signature{Payload: []byte(p), Signature: []byte("signature of " + p)})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	raw, _, err := makeSignatures(list)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestParseSignatures(t *testing.T) {
	list, err := parseSignatures(attached(t, "one", "two"))
	if err != nil || len(list) != 2 || string(list[1].Signature.Signature) != "signature of two" || list[1].descriptor.Digest != digest.FromString("two") {
		t.Fatalf("%+v, %v", list, err)
	}
	var many []string
	for range maxSignatures + 1 {
		many = append(many, "x")
	}
	good := string(attached(t, "one"))
	change := func(old, now string) []byte {
		if !strings.Contains(good, old) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return []byte(strings.Replace(good, old, now, 1))
	}
	for name, raw := range map[string][]byte{
		"no JSON":              []byte("x"),
		"trailing":             []byte(good + "{}"),
		"too many":             attached(t, many...),
		"too large":            []byte(good + strings.Repeat(" ", maxSignatureManifest)),
		"index":                change("image.manifest", "image.index"),
		"schema":               change(`"schemaVersion":2`, `"schemaVersion":1`),
		"digest":               change(digest.FromString("one").String(), "../../etc/passwd"),
		"size":                 change(`"size":3,`, `"size":-3,`),
		"no size":              change(`"size":3`, `"size":0`),
		"large payload":        change(`"size":3`, `"size":99999999`),
		"no base64":            change(`c2lnbmF0dXJl`, `!!!!`),
		"no signature":         change(annotationSignature, "other"),
		"annotation twice":     change(`"annotations":{`, `"annotations":{"`+annotationSignature+`":"AAAA",`),
		"layers twice":         change(`"layers":`, `"layers":[],"layers":`),
		"long signature":       change(`c2lnbmF0dXJl`, strings.Repeat("AAAA", maxRawSignature)),
		"layers of wrong type": change(`"layers":[`, `"layers":[1,`),
	} {
		if list, err := parseSignatures(raw); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, %v: expected a refusal", name, list, err)
		}
	}
	// What is no signature is somebody else's.
	if list, err := parseSignatures(change(mediaTypeSimpleSigning, "application/x-other")); err != nil || len(list) != 0 {
		t.Errorf("another layer: %v, %v", list, err)
	}
}

// The registry of this test permits no deletion if told so, as Debian's.
func signatureRegistry(t *testing.T, deletes bool) (repo string, of digest.Digest) {
	t.Helper()
	inner := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete && !deletes {
			http.Error(w, `{"errors":[{"code":"UNSUPPORTED"}]}`, http.StatusMethodNotAllowed)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	repo = strings.TrimPrefix(server.URL, "http://") + "/app"
	image, err := random.Image(10, 1)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(repo+":1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
	h, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return repo, digest.Digest(h.String())
}

func TestSignatures(t *testing.T) {
	for _, deletes := range []bool{true, false} {
		repo, of := signatureRegistry(t, deletes)
		c, ctx := New(Options{}), t.Context()
		if list, err := c.Signatures(ctx, repo, of, nil); err != nil || len(list) != 0 {
			t.Fatalf("before: %v, %v", list, err)
		}
		first, second := wire.Signature{Payload: []byte("one"), Signature: []byte("1")}, wire.Signature{Payload: []byte("two"), Signature: []byte("2")}
		for _, s := range []wire.Signature{first, second, first} {
			if err := c.AddSignature(ctx, repo, of, s, nil); err != nil {
				t.Fatal(err)
			}
		}
		list, err := c.Signatures(ctx, repo, of, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]wire.Signature{first, second}, list); diff != "" {
			t.Error(diff)
		}
		tags, err := c.Tags(ctx, repo, 10, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]digest.Digest{of}, SignedDigests(tags)); diff != "" {
			t.Error(diff)
		}
		for _, payload := range []string{"one", "two"} {
			removed, err := c.RemoveSignatures(ctx, repo, of, func(s wire.Signature) bool { return string(s.Payload) == payload }, nil)
			if err != nil || len(removed) != 1 {
				t.Fatalf("remove %s: %v, %v", payload, removed, err)
			}
		}
		if list, err := c.Signatures(ctx, repo, of, nil); err != nil || len(list) != 0 {
			t.Errorf("after: %v, %v", list, err)
		}
		if d, listed, err := c.Manifests(ctx, repo+":1", nil); err != nil || d.Digest != of || listed != nil {
			t.Errorf("the image itself: %v, %v, %v", d, listed, err)
		}
	}
}

func FuzzParseSignatures(f *testing.F) {
	a, err := newAttachment(wire.Signature{Payload: []byte("{}"), Signature: []byte("x")})
	if err != nil {
		f.Fatal(err)
	}
	raw, _, err := makeSignatures([]attachment{a})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"schemaVersion":2,"layers":[{"annotations":{"a":"b"}},[{"a":1}]]}`))
	f.Add([]byte(`{"a":{"a":{"a":[{},{}]}},"b":"a"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := parseSignatures(raw)
		if err != nil {
			return
		}
		if len(list) > maxSignatures {
			t.Fatalf("%d signatures", len(list))
		}
		for _, a := range list {
			if a.descriptor.Size > maxPayload || a.descriptor.Digest.Validate() != nil {
				t.Fatalf("%+v", a.descriptor)
			}
		}
		if manifest, _, err := makeSignatures(list); err != nil || !json.Valid(manifest) {
			t.Fatal(err)
		}
	})
}
