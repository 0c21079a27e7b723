package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// What is no registry is told, and stays as it is.
func TestCheck(t *testing.T) {
	if err := Check(open(t).root); err != nil {
		t.Error(err)
	}
	root := t.TempDir()
	for _, dir := range []string{"", "blobs", "repositories", "lock"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := Check(root); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "expected the directory of a registry") {
			t.Errorf("with %q: %v", dir, err)
		}
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 3 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func (s *Store) mustBlob(t *testing.T, name, content string) digest.Digest {
	t.Helper()
	d := digest.FromString(content)
	id, err := s.Begin(name)
	if err == nil {
		_, err = s.Append(name, id, -1, strings.NewReader(content))
	}
	if err == nil {
		err = s.Commit(name, id, d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// mustImage keeps an image with a layer in the repository app, and returns its digest.
func (s *Store) mustImage(t *testing.T, layer, more string, tags ...string) digest.Digest {
	t.Helper()
	config, blob := s.mustBlob(t, "app", "{}"), s.mustBlob(t, "app", layer)
	content := fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":%q,"size":2},"layers":[{"digest":%q,"size":%d}]%s}`, config, blob, len(layer), more)
	return s.mustManifest(t, ocispec.MediaTypeImageManifest, content, tags...)
}

func (s *Store) mustManifest(t *testing.T, mediaType, content string, tags ...string) digest.Digest {
	t.Helper()
	m := Manifest{Digest: digest.FromString(content), MediaType: mediaType, Content: []byte(content)}
	if _, err := s.PutManifest("app", tags, m, false); err != nil {
		t.Fatal(err)
	}
	return m.Digest
}

func TestOneProcessAtATime(t *testing.T) {
	s := open(t)
	if _, err := Open(s.root); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second one opened it: %v", err)
	}
	s.Close()
	again, err := Open(s.root)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestUploadsEndWithTheProcess(t *testing.T) {
	s := open(t)
	id, err := s.Begin("a")
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if left, err := filepath.Glob(filepath.Join(s.root, "uploads", "*")); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
	if err := s.Cancel("a", id); !errors.Is(err, ErrUploadUnknown) {
		t.Errorf("%v: expected an unknown upload", err)
	}
}

func TestCollect(t *testing.T) {
	s := open(t)
	kept := s.mustImage(t, "one", "", "1")
	child := s.mustImage(t, "child", "")
	index := s.mustManifest(t, ocispec.MediaTypeImageIndex, fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":%q}]}`, child), "many")
	signature := s.mustImage(t, "signature", fmt.Sprintf(`,"subject":{"digest":%q}`, kept))
	untagged := s.mustImage(t, "untagged", "")
	orphan := s.mustImage(t, "orphan", fmt.Sprintf(`,"subject":{"digest":%q}`, untagged))
	s.mustBlob(t, "app", "pushed for a manifest that has not come")
	s.mustBlob(t, "elsewhere", "one")

	dry, err := s.Collect(Collection{Untagged: true, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if young, err := s.Collect(Collection{Untagged: true, Grace: time.Hour}); err != nil || young != (Collected{}) {
		t.Errorf("within the grace: %+v, %v", young, err)
	}
	done, err := s.Collect(Collection{Untagged: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(dry, done); diff != "" {
		t.Errorf("what it would do and what it does: %s", diff)
	}
	if done.Manifests != 2 || done.Blobs != 5 { // two manifests, their layers, and what waits for its manifest
		t.Errorf("%+v: expected 2 manifests and 5 blobs", done)
	}
	for _, d := range []digest.Digest{kept, child, index, signature} {
		if _, err := s.Manifest("app", d); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
	for _, d := range []digest.Digest{untagged, orphan} {
		if _, err := s.Manifest("app", d); !errors.Is(err, ErrManifestUnknown) {
			t.Errorf("%s is still there: %v", d, err)
		}
	}
	f, err := s.Blob("app", digest.FromString("one"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	// No manifest in the other repository needed it.
	if s.HasBlob("elsewhere", digest.FromString("one")) {
		t.Error("elsewhere still has the blob")
	}
	if again, err := s.Collect(Collection{Untagged: true}); err != nil || again != (Collected{}) {
		t.Errorf("again: %+v, %v", again, err)
	}
}

func TestACacheForgetsWhatIsNotAskedFor(t *testing.T) {
	s := open(t)
	old, used := s.mustImage(t, "old", "", "old"), s.mustImage(t, "used", "", "used")
	past := time.Now().Add(-2 * time.Hour)
	for _, d := range []digest.Digest{old, used} {
		if err := os.Chtimes(s.link("app", "_manifests", d), past, past); err != nil {
			t.Fatal(err)
		}
	}
	s.Use("app", used)
	done, err := s.Collect(Collection{Older: time.Now().Add(-time.Hour)})
	if err != nil || done.Manifests != 1 || done.Blobs != 2 {
		t.Errorf("%+v, %v: expected 1 manifest and 2 blobs", done, err)
	}
	if tags, err := s.Tags("app"); err != nil || !cmp.Equal(tags, []string{"used"}) {
		t.Errorf("tags %q, %v", tags, err)
	}
}
