package layer

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// A layer that only pretends to be the one of a diff ID leaves nothing in those above it: when the real files are there,
// the directories that these do not describe are as the real ones say, after a crash too.
func TestImpostorLeavesNoAttributes(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{false: "replaced", true: "crash in between"}[restart], func(t *testing.T) {
			root, fake := t.TempDir(), t.TempDir()
			s, err := Open(root, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = errors.Join(os.Mkdir(filepath.Join(fake, "etc"), 0o777), os.Chmod(fake, 0o777), os.Chmod(filepath.Join(fake, "etc"), 0o777), os.Chown(fake, 1000, 1000),
				unix.Setxattr(fake, "user.evil", []byte("yes"), 0))
			if err != nil {
				t.Fatal(err)
			}
			real := []file{{Name: "./", Mode: 0o711}, {Name: "etc/", Mode: 0o750, Uid: 7}, {Name: "etc/passwd"}}
			diff, err := digest.FromReader(archive(t, real...))
			if err != nil {
				t.Fatal(err)
			}
			base := show(t, s, diff, fake, "", nil)
			var told map[string]Attributes
			middle := show(t, s, digest.FromString("middle"), t.TempDir(), base.ChainID, &told)
			top, err := s.Unpack(t.Context(), base.ChainID, archive(t, file{Name: "etc/hosts"}))
			if err != nil {
				t.Fatal(err)
			}
			last, err := s.Unpack(t.Context(), top.ChainID, archive(t, file{Name: "etc/issue"}))
			if err != nil {
				t.Fatal(err)
			}
			if got := attributesOf(t, s, last, "."); got.Mode != 0o777 || got.UID != 1000 || got.Xattrs["user.evil"] == "" {
				t.Fatalf("before: %+v", got)
			}
			if told["."].Mode != 0o777 || s.Misled(middle.ChainID, told) {
				t.Errorf("the one that is shown above was told %+v", told)
			}
			staged, err := s.Stage(t.Context(), archive(t, real...))
			if err != nil {
				t.Fatal(err)
			}
			if restart {
				err = s.replace(t.Context(), base.ChainID, staged)
				if err == nil {
					s, err = Open(root, nil)
				}
				if err == nil {
					err = s.Reconcile(t.Context(), nil, []digest.Digest{last.ChainID, middle.ChainID})
				}
			} else {
				_, err = staged.Commit(t.Context(), "")
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range []Layer{top, last} {
				if got := attributesOf(t, s, l, "."); got.Mode != 0o711 || got.UID != 0 || len(got.Xattrs) > 0 {
					t.Errorf("the root is %+v", got)
				}
				if got := attributesOf(t, s, l, "etc"); got.Mode != 0o750 || got.UID != 7 {
					t.Errorf("etc is %+v", got)
				}
				if _, err := os.Stat(filepath.Join(s.dir(l.ChainID), inheritedFile)); err == nil {
					t.Error("it is not settled")
				}
			}
			if !s.Misled(middle.ChainID, told) {
				t.Error("what is shown above is not known to have attributes of the impostor")
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Names that an opaque root hides are not those of an impostor.
func TestImpostorHidesNoNames(t *testing.T) {
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	base := show(t, s, digest.FromString("x"), t.TempDir(), "", nil)
	if _, err := s.Unpack(t.Context(), base.ChainID, archive(t, file{Name: ".wh..wh..opq"}, file{Name: "new"})); !errors.Is(err, ErrShownBelow) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// The size of a layer is that of its files, whatever was said of it.
func TestImpostorHasNoSize(t *testing.T) {
	root := t.TempDir()
	s, err := Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	diff, err := digest.FromReader(archive(t, file{Name: "file"}))
	if err != nil {
		t.Fatal(err)
	}
	base := show(t, s, diff, t.TempDir(), "", nil)
	l, err := s.Unpack(t.Context(), "", archive(t, file{Name: "file"}))
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Open(root, nil); err != nil {
		t.Fatal(err)
	}
	again, err := s.Get(base.ChainID)
	if err != nil || again.Size != 4 || base.Size != 1<<40 || l.ChainID != base.ChainID {
		t.Errorf("%+v, %v", again, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// show makes a layer that is shown by the files of a directory.
func show(t *testing.T, s *Store, diff digest.Digest, at string, parent digest.Digest, told *map[string]Attributes) Layer {
	t.Helper()
	staged, err := s.StageShown(Shown{
		DiffID: diff, Size: 1 << 40, At: at, Implied: []string{".", "etc"},
		Settle: func(_ context.Context, _ digest.Digest, a map[string]Attributes) (json.RawMessage, error) {
			if told != nil {
				*told = a
			}
			return json.RawMessage("{}"), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := staged.Commit(t.Context(), parent)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func attributesOf(t *testing.T, s *Store, l Layer, dir string) Attributes {
	t.Helper()
	k, err := s.stack(l.ChainID)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	f, err := k.lookup(dir)
	if err != nil || f == nil {
		t.Fatalf("%s: %v", dir, err)
	}
	defer f.close()
	a, err := f.attributes()
	if err != nil {
		t.Fatal(err)
	}
	return a
}
