package image

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/trust"
	"github.com/sampan-project/sampan/core/wire"
)

// notary is a key, and the policy that demands its signature of a repository.
type notary struct {
	key  *trust.PrivateKey
	gate trust.Gate
}

func newNotary(t *testing.T, repository string) *notary {
	t.Helper()
	n := &notary{}
	var err error
	if n.key, err = trust.GenerateKey(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "alice.pub")
	if err := os.WriteFile(path, n.key.Public().PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := trust.Config{Repositories: map[string]trust.RuleConfig{repository: {Keys: []string{path}}}}.Load()
	if err != nil {
		t.Fatal(err)
	}
	n.gate.Set(p)
	return n
}

func (n *notary) request(t *testing.T, ref, digest string, at time.Time) wire.SignRequest {
	t.Helper()
	payload, err := trust.Claim{Reference: ref, Digest: digest, Time: at}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s, err := n.key.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	return wire.SignRequest{Digest: digest, Signature: wire.Signature{Payload: payload, Signature: s}}
}

// fickle is a registry whose tag "1" is, from the second request on, what "2" is.
type fickle struct {
	inner http.Handler
	mu    sync.Mutex
	asked int
	turns bool
}

func (f *fickle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/manifests/1") && r.Method == http.MethodGet {
		f.mu.Lock()
		if f.asked++; f.turns && f.asked > 1 {
			r.URL.Path = strings.TrimSuffix(r.URL.Path, "1") + "2"
		}
		f.mu.Unlock()
	}
	f.inner.ServeHTTP(w, r)
}

// TestPullVerified shows that what is kept is what was verified, and that nothing is kept of anything else.
func TestPullVerified(t *testing.T) {
	f := &fickle{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	first, second := made(t, "1"), made(t, "2")
	good, ref := push(t, host, "app:1", first), host+"/app:1"
	push(t, host, "app:2", second)
	n := newNotary(t, host+"/app")
	w, ctx := newWorld(t), t.Context()
	w.o.Trust = &n.gate

	err := w.Pull(ctx, ref, "", nil, nil)
	if !fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "it has none") {
		t.Fatalf("unsigned: %v", err)
	}
	if err := w.Sign(ctx, ref, n.request(t, ref, good, time.Unix(2000, 0)), nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Pull(ctx, host+"/app:2", "", nil, nil); !fault.Is(err, fault.Forbidden) {
		t.Fatalf("another image, another tag: %v", err)
	}
	if left := w.leftovers(t); left != "0 0 0 0" {
		t.Errorf("what was refused left %s", left)
	}

	f.asked, f.turns = 0, true
	w = newWorld(t)
	w.o.Trust = &n.gate
	if err := w.Pull(ctx, ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Use(ctx, ref); err != nil || got.ID != idOf(t, first) {
		t.Errorf("got %+v, %v: expected the image that was verified", got, err)
	}
	if err := w.Pull(ctx, ref, "", nil, nil); !fault.Is(err, fault.Forbidden) {
		t.Errorf("the tag turned: %v", err)
	}
	if got, err := w.Use(ctx, ref); err != nil || got.ID != idOf(t, first) {
		t.Errorf("after a refused pull: %+v, %v", got, err)
	}
}

// TestUse shows which names of an image may be used, from what is kept with it, after a restart too.
func TestUse(t *testing.T) {
	host := registryHost(t)
	digest, ref := push(t, host, "app:1", made(t, "1")), host+"/app:1"
	n := newNotary(t, host+"/app")
	w, ctx := newWorld(t), t.Context()
	w.o.Trust = &n.gate
	if err := w.Sign(ctx, ref, n.request(t, ref, digest, time.Unix(2000, 0)), nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Pull(ctx, ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{host + "/app:other", "mine"} {
		if err := w.Tag(ctx, ref, name); err != nil {
			t.Fatal(err)
		}
	}
	w = w.reopen(t)
	w.o.Trust = &n.gate
	id := idOf(t, made(t, "1"))
	for name, permitted := range map[string]bool{
		ref: true, host + "/app@" + digest: true, host + "/app:other": false, "mine": true, id.String(): true, id.Encoded()[:12]: true,
	} {
		if _, err := w.Use(ctx, name); permitted != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.Use(ctx, "nothing"); !fault.Is(err, fault.NotFound) {
		t.Errorf("no image: %v", err)
	}
	if n, err := w.Revoke(ctx, ref, nil); err != nil || n != 1 {
		t.Fatalf("revoke: %d, %v", n, err)
	}
	if _, err := w.Use(ctx, ref); !fault.Is(err, fault.Forbidden) {
		t.Errorf("revoked: %v", err)
	}
}

// TestPullOlder shows that a tag does not go back, as far as signatures tell the time.
func TestPullOlder(t *testing.T) {
	t.Run("image", func(t *testing.T) { pullOlder(t, func(i v1.Image) v1.Image { return i }) })
	t.Run("artifact", func(t *testing.T) {
		pullOlder(t, func(i v1.Image) v1.Image { return mutate.ConfigMediaType(i, "application/vnd.example.chart+json") })
	})
}

func pullOlder(t *testing.T, as func(v1.Image) v1.Image) {
	t.Helper()
	host := registryHost(t)
	ref := host + "/app:1"
	n := newNotary(t, host+"/app")
	w, ctx := newWorld(t), t.Context()
	w.o.Trust = &n.gate
	digests := map[string]string{}
	steps := []struct {
		image string
		at    int64 // of a signature that is added; 0: none
		ok    bool
	}{
		{"old", 2000, true},
		{"new", 3000, true},
		{"old", 0, false},
		{"old", 4000, true},
		{"new", 0, false},
		{"far", time.Now().Add(1000 * time.Hour).Unix(), true},
		{"next", time.Now().Add(time.Minute).Unix(), true}, // a wrong clock before does not shut it out
	}
	for i, step := range steps {
		digests[step.image] = push(t, host, "app:1", as(made(t, step.image)))
		if step.at != 0 {
			if err := w.Sign(ctx, ref, n.request(t, ref, digests[step.image], time.Unix(step.at, 0)), nil); err != nil {
				t.Fatal(err)
			}
		}
		err := w.Pull(ctx, ref, "", nil, nil)
		if step.ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "is older than the one of") {
			t.Errorf("step %d: %v", i, err)
		}
	}
}

// TestSignRefused shows that a claim is stored only beside what it is about.
func TestSignRefused(t *testing.T) {
	host := registryHost(t)
	digest, ref := push(t, host, "app:1", made(t, "1")), host+"/app:1"
	n := newNotary(t, host+"/app")
	w, at := newWorld(t), time.Unix(2000, 0)
	nowhere := "sha256:" + strings.Repeat("0", 64)
	other := n.request(t, ref, digest, at)
	other.Digest = nowhere
	for name, r := range map[string]wire.SignRequest{
		"another repository": n.request(t, host+"/evil:1", digest, at),
		"another digest":     other,
		"unknown digest":     n.request(t, ref, nowhere, at),
		"nonsense":           {Digest: digest, Signature: wire.Signature{Payload: []byte("{}"), Signature: []byte("x")}},
		"nothing":            {},
	} {
		if err := w.Sign(t.Context(), ref, r, nil); err == nil {
			t.Errorf("%s: expected a refusal", name)
		}
	}
	data, err := w.TrustData(t.Context(), ref, nil)
	if err != nil || len(data.Tags) != 1 || len(data.Tags[0].Signatures) != 0 || data.Tags[0].Digest != digest {
		t.Errorf("%+v, %v", data, err)
	}
}
