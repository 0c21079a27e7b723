package image

import (
	"context"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sampan-project/sampan/core/check"
	"github.com/sampan-project/sampan/core/fault"
)

// losing opens a world that has an image of a registry under two names, without the blob of its upper layer.
func losing(t *testing.T) (w *world, host string, image v1.Image) {
	t.Helper()
	host, image = registryHost(t), made(t, "1")
	push(t, host, "team/demo:1", image)
	w = newWorld(t)
	must(t, w.Pull(t.Context(), host+"/team/demo:1", "", nil, messages(new([]string))))
	must(t, w.Tag(t.Context(), host+"/team/demo:1", "mine"))
	must(t, w.Close())
	e := w.byID(idOf(t, image))
	must(t, w.o.Content.Delete(e.Layers[1].Blob.Digest))
	return w.reopen(t), host, image
}

func (w *world) findings(t *testing.T) []check.Finding {
	t.Helper()
	found, err := w.Check(t.Context(), true)
	must(t, err)
	return found
}

// A start after a blob was lost forgets nothing: the image is told of, and what it still has is kept.
func TestDamagedIsKept(t *testing.T) {
	w, _, image := losing(t)
	if _, err := w.Get(t.Context(), "mine"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a damaged image is of use: %v", err)
	}
	if n := w.leftovers(t); n != "3 0 2 0" {
		t.Errorf("left %s of the image's files, expected configuration, manifest, one blob and two layers", n)
	}
	for range 2 { // also the next start
		found := w.findings(t)
		if len(found) != 1 || !strings.Contains(found[0].Problem, "no blob sha256:") || !strings.Contains(found[0].Problem, "mine:latest") || found[0].Subject != idOf(t, image).String() {
			t.Fatalf("found %v", found)
		}
		w = w.reopen(t)
	}
}

// What a repair pulls is the missing blob; the image has its names again.
func TestDamagedIsMended(t *testing.T) {
	w, host, image := losing(t)
	found := w.findings(t)
	if len(found) != 1 || found[0].Mend == nil {
		t.Fatalf("found %v, expected one that can be mended", found)
	}
	must(t, found[0].Mend(context.WithoutCancel(t.Context())))
	for _, name := range []string{"mine", host + "/team/demo:1"} {
		if got, err := w.Get(t.Context(), name); err != nil || got.ID != idOf(t, image) {
			t.Errorf("%s is %v, %v", name, got, err)
		}
	}
	if found := w.findings(t); len(found) > 0 {
		t.Errorf("after it was mended: %v", found)
	}
}

// A repair without the registry fails and loses nothing; a load mends as well.
func TestDamagedWithoutRegistry(t *testing.T) {
	w, _, image := losing(t)
	d := w.damaged[idOf(t, image)]
	d.Digests = []string{"127.0.0.1:1/team/demo@" + d.Manifest.Digest.String()}
	if err := w.refetch(t.Context(), d); err == nil || !strings.Contains(err.Error(), "rmi") {
		t.Errorf("refetch: %v", err)
	}
	w.load(t, image, "loaded")
	got, err := w.Get(t.Context(), "loaded")
	must(t, err)
	if len(got.Names) != 3 || len(w.findings(t)) > 0 {
		t.Errorf("names %v, found %v", got.Names, w.findings(t))
	}
}

func TestDamagedIsRemoved(t *testing.T) {
	for _, test := range []struct{ name, ref string }{{"by its name", "mine"}, {"by its ID", ""}} {
		t.Run(test.name, func(t *testing.T) {
			w, host, image := losing(t)
			refs := []string{test.ref, host + "/team/demo:1"}
			if test.ref == "" {
				refs = []string{idOf(t, image).Encoded()[:12]}
			}
			for i, ref := range refs {
				if len(w.findings(t)) != 1 {
					t.Fatalf("before the name number %d is removed there is nothing to be told", i)
				}
				_, err := w.Remove(t.Context(), ref, false, false)
				must(t, err)
			}
			if n := w.leftovers(t); n != "0 0 0 0" {
				t.Errorf("left %s", n)
			}
			if found := w.findings(t); len(found) > 0 {
				t.Errorf("found %v", found)
			}
		})
	}
}

// A container's image is not removed under it.
func TestDamagedInUse(t *testing.T) {
	w, _, image := losing(t)
	w.users[idOf(t, image).String()] = []User{{ContainerID: "0123456789abcdef"}}
	if _, err := w.Remove(t.Context(), "mine", false, false); !fault.Is(err, fault.Conflict) {
		t.Errorf("removed: %v", err)
	}
}

// A name that another image takes does not come back.
func TestDamagedLosesItsName(t *testing.T) {
	w, host, _ := losing(t)
	other := w.load(t, made(t, "2"), "mine:latest")
	must(t, w.Pull(t.Context(), host+"/team/demo:1", "", nil, messages(new([]string))))
	got, err := w.Get(t.Context(), "mine")
	if err != nil || got.ID != other {
		t.Errorf("mine is %v, %v", got, err)
	}
}
