package image

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func push(t *testing.T, host, repo string, image v1.Image) string {
	t.Helper()
	ref, err := name.NewTag(host+"/"+repo, name.Insecure)
	if err == nil {
		err = remote.Write(ref, image)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestPullAndPush(t *testing.T) {
	host := registryHost(t)
	image := made(t, "1")
	manifest := push(t, host, "team/demo:1", image)
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, d.Hex[:12])
	}
	w := newWorld(t)
	ctx := t.Context()
	var said []string
	ref := host + "/team/demo:1"
	progress := func(m wire.Message) {
		if m.Status != "Downloading" && m.Status != "Extracting" {
			said = append(said, strings.TrimSpace(m.ID+" "+m.Status))
		}
	}
	if err := w.Pull(ctx, ref, "", nil, progress); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"1 Pulling from team/demo", "Digest: " + manifest, "Status: Downloaded newer image for " + ref,
		ids[0] + " Pulling fs layer", ids[0] + " Verifying Checksum", ids[0] + " Download complete", ids[0] + " Pull complete",
		ids[1] + " Pulling fs layer", ids[1] + " Verifying Checksum", ids[1] + " Download complete", ids[1] + " Pull complete",
	}
	if diff := cmp.Diff(sorted(want), sorted(said)); diff != "" {
		t.Error(diff)
	}
	got, err := w.Get(ctx, ref)
	if err != nil || got.ID != idOf(t, image) || len(got.Digests) != 1 || got.Digests[0] != host+"/team/demo@"+manifest {
		t.Errorf("got %+v, %v", got, err)
	}
	said = nil
	if err := w.Pull(ctx, ref, "", nil, progress); err != nil {
		t.Fatal(err)
	}
	if last := said[len(said)-1]; last != "Status: Image is up to date for "+ref {
		t.Errorf("second pull says %q", last)
	}
	if _, err := w.Get(ctx, host+"/team/demo@"+manifest); err != nil {
		t.Error(err)
	}
	before := w.leftovers(t)
	if before != "4 0 2 0" {
		t.Errorf("left %s", before)
	}
	if err := w.Pull(ctx, host+"/team/demo:none", "", nil, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown tag: %v", err)
	}
	if err := w.Pull(ctx, ref, "linux/s390x", nil, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("another platform: %v", err)
	}
	if err := w.Tag(ctx, ref, host+"/copy:2"); err != nil {
		t.Fatal(err)
	}
	if err := w.Push(ctx, host+"/copy:2", nil, nil); err != nil {
		t.Fatal(err)
	}
	fresh := newWorld(t)
	if err := fresh.Pull(ctx, host+"/copy@"+manifest, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	i, err := fresh.Get(ctx, got.ID.String())
	if err != nil || len(i.Names) != 0 || len(i.Digests) != 1 {
		t.Errorf("pulled by digest: %+v, %v", i, err)
	}
	if err := w.Push(ctx, host+"/nothing", nil, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("pushed nothing: %v", err)
	}
	// The last tag takes the digest of its repository with it.
	out, err := w.Remove(ctx, ref, false, false)
	if err != nil || len(out) != 2 || out[1].Untagged != host+"/team/demo@"+manifest {
		t.Errorf("removed %v, %v", out, err)
	}
}

// A registry that lies about a layer leaves nothing behind.
func TestPullRefuses(t *testing.T) {
	host := registryHost(t)
	image := made(t, "1")
	push(t, host, "demo:1", image)
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	top, err := layers[1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]func(w http.ResponseWriter, real []byte){
		"another byte": func(w http.ResponseWriter, real []byte) {
			real[len(real)/2] ^= 0xff
			_, _ = w.Write(real)
		},
		"too much": func(w http.ResponseWriter, real []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(real)+9))
			_, _ = w.Write(append(real, "excessive"...))
		},
		"gone": func(w http.ResponseWriter, _ []byte) { http.Error(w, "gone", http.StatusNotFound) },
	} {
		t.Run(name, func(t *testing.T) {
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer, err := http.Get("http://" + host + r.URL.RequestURI())
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadGateway)
					return
				}
				defer answer.Body.Close()
				data, err := io.ReadAll(answer.Body)
				if err == nil && strings.HasSuffix(r.URL.Path, top.String()) && r.Method == http.MethodGet {
					lie(w, data)
					return
				}
				for k, v := range answer.Header {
					w.Header()[k] = v
				}
				w.WriteHeader(answer.StatusCode)
				_, _ = io.Copy(w, bytes.NewReader(data))
			}))
			defer proxy.Close()
			w := newWorld(t)
			if err := w.Pull(t.Context(), strings.TrimPrefix(proxy.URL, "http://")+"/demo:1", "", nil, nil); err == nil {
				t.Error("pulled it")
			} else {
				t.Log(err)
			}
			if n := w.leftovers(t); n != "0 0 0 0" {
				t.Errorf("left %s", n)
			}
		})
	}
}
