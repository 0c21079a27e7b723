package layer

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
)

// A layer that is shown is one of the store, found through its directory and its short name, also by the next
// daemon; its unpacked files take its place, and what stands on it stays.
func TestShown(t *testing.T) {
	root, at := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(at, "file"), []byte("shown"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	released := make(chan digest.Digest, 1)
	s.OnRelease(func(chain digest.Digest) { released <- chain })
	base, err := s.Unpack(t.Context(), "", archive(t, file{Name: "./", Mode: 0o711}, file{Name: "etc/", Mode: 0o750}))
	if err != nil {
		t.Fatal(err)
	}
	diff, err := digest.FromReader(archive(t, file{Name: "file"}))
	if err != nil {
		t.Fatal(err)
	}
	var told map[string]Attributes
	staged, err := s.StageShown(Shown{
		DiffID: diff, Size: 5, At: at, Implied: []string{".", "etc", "new"},
		Settle: func(_ context.Context, chain digest.Digest, a map[string]Attributes) (json.RawMessage, error) {
			if told = a; chain != Chain(base.ChainID, diff) {
				t.Errorf("settled as %s", chain)
			}
			return json.RawMessage(`{"from":"there"}`), nil
		},
		Release: func() { t.Error("given back though it was committed") },
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := staged.Commit(t.Context(), base.ChainID)
	if err != nil {
		t.Fatal(err)
	}
	if len(told) != 2 || told["."].Mode != 0o711 || told["etc"].Mode != 0o750 {
		t.Errorf("attributes: %+v", told)
	}
	if s, err = Open(root, nil); err != nil { // the next daemon
		t.Fatal(err)
	}
	s.OnRelease(func(chain digest.Digest) { released <- chain })
	if !s.IsShown(l.ChainID) || s.IsShown(base.ChainID) {
		t.Error("it is not known what is shown")
	}
	if got := s.ShownLayers(); len(got) != 1 || string(got[l.ChainID]) != `{"from":"there"}` {
		t.Errorf("kept: %s", got)
	}
	path := filepath.Join(root, linkDir, l.Link, "file")
	content := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	if got := content(); got != "shown" {
		t.Errorf("by its short name: %q", got)
	}
	if _, err := s.Prepare(t.Context(), "key", l.ChainID); err != nil {
		t.Error(err)
	}

	wrong, err := s.Stage(t.Context(), archive(t, file{Name: "file"}, file{Name: "other"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Replace(t.Context(), l.ChainID, wrong); !fault.Is(err, fault.Invalid) || content() != "shown" {
		t.Errorf("replaced by other files: %v", err)
	}
	right, err := s.Stage(t.Context(), archive(t, file{Name: "file"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Replace(t.Context(), l.ChainID, right); err != nil || content() != "file" || s.IsShown(l.ChainID) {
		t.Errorf("replaced: %v, %q", err, content())
	}
	// Not at once: an overlay may be mounted on it at this moment.
	if len(released) > 0 {
		t.Error("released in the act")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if got := <-released; got != l.ChainID {
		t.Errorf("released %s", got)
	}
	if left, err := os.ReadDir(filepath.Join(root, tmpDir)); len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if diff := cmp.Diff(map[digest.Digest]json.RawMessage{}, s.ShownLayers()); diff != "" {
		t.Error(diff)
	}
}

// What is not committed is given back, and what is removed is released.
func TestShownEnds(t *testing.T) {
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	at, back := t.TempDir(), 0
	released := make(chan digest.Digest, 1)
	s.OnRelease(func(chain digest.Digest) { released <- chain })
	shown := Shown{DiffID: digest.FromString("x"), At: at, Release: func() { back++ }}
	shown.Settle = func(context.Context, digest.Digest, map[string]Attributes) (json.RawMessage, error) {
		return nil, errors.New("nobody there")
	}
	staged, err := s.StageShown(shown)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := staged.Commit(t.Context(), ""); err == nil || back != 1 {
		t.Errorf("%v, given back %d times", err, back)
	}
	shown.Settle = func(context.Context, digest.Digest, map[string]Attributes) (json.RawMessage, error) {
		return json.RawMessage("{}"), nil
	}
	if staged, err = s.StageShown(shown); err != nil {
		t.Fatal(err)
	}
	l, err := staged.Commit(t.Context(), "")
	if err != nil || back != 1 {
		t.Fatalf("%v, given back %d times", err, back)
	}
	if err := s.Release(t.Context(), l.ChainID); err != nil {
		t.Error(err)
	}
	if got := <-released; got != l.ChainID {
		t.Errorf("released %s", got)
	}
	// What the start of a daemon removes is not told: it could be taken for what is shown anew meanwhile.
	if staged, err = s.StageShown(shown); err != nil {
		t.Fatal(err)
	}
	if l, err = staged.Commit(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Reconcile(t.Context(), nil, nil); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(l.ChainID); err == nil {
		t.Error("it is still there")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if len(released) > 0 {
		t.Error("released by Reconcile")
	}
	if _, err := os.Stat(at); err != nil {
		t.Errorf("what was shown is removed with the layer: %v", err)
	}
}
