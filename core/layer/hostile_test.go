package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
)

// everything lists what lies below a directory, with sizes.
func everything(t *testing.T, root string) (list []string) {
	t.Helper()
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			size := info.Size()
			if info.IsDir() {
				size = 0 // a directory does not shrink again
			}
			list = append(list, fmt.Sprint(path, " ", info.Mode(), " ", size))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// refused unpacks a hostile layer on a good one, and looks whether anything has changed.
func refused(t *testing.T, limits Limits, layer io.Reader, words string) {
	t.Helper()
	s := open(t)
	parent := unpack(t, s, base)
	if limits != (Limits{}) {
		s.SetLimits(limits)
	}
	s.removals.Wait()
	before := everything(t, s.root)
	_, err := s.Unpack(t.Context(), parent, layer)
	s.removals.Wait()
	switch {
	case !fault.Is(err, fault.Invalid):
		t.Errorf("got %v, want class invalid", err)
	case !strings.Contains(err.Error(), words):
		t.Errorf("got %q: expected %q in it", err, words)
	case strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 2048:
		t.Errorf("the error is no short line: %.300q (%d bytes)", err, len(err.Error()))
	}
	if diff := cmp.Diff(before, everything(t, s.root)); diff != "" {
		t.Errorf("the store has changed: %s", diff)
	}
	if found, err := s.Check(t.Context(), nil); err != nil || len(found) > 0 {
		t.Errorf("check: %v, %v", found, err)
	}
}

// raw is a tar of blocks that archive/tar would not write.
type raw struct{ bytes.Buffer }

// entry adds a header with its bytes, and the padding.
func (r *raw) entry(kind byte, name string, body []byte) *raw {
	var h [512]byte
	copy(h[0:100], name)
	copy(h[100:], "0000644\x00")
	copy(h[108:], "0000000\x00")
	copy(h[116:], "0000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00", len(body)))
	copy(h[136:], "14000000000\x00")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	r.seal(&h)
	r.Write(body)
	r.Write(make([]byte, -len(body)&511))
	return r
}

func (r *raw) seal(h *[512]byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	r.Write(h[:])
}

func (r *raw) end() io.Reader {
	r.Write(make([]byte, 1024))
	return &r.Buffer
}

// record is one of PAX: its length, counting itself, a key and a value.
func record(key, value string) []byte {
	size := len(key) + len(value) + 3
	for n := 0; n != size; {
		n = size
		size = len(key) + len(value) + 3 + len(fmt.Sprint(n))
	}
	return fmt.Appendf(nil, "%d %s=%s\n", size, key, value)
}

// endless repeats an entry for ever.
type endless struct{ once, rest []byte }

func (e *endless) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		e.rest = e.once
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func TestHostileHeaders(t *testing.T) {
	long := strings.Repeat("n", 900<<10)
	var flood []byte
	for i := range 4000 {
		flood = append(flood, record(fmt.Sprintf("SCHILY.xattr.user.%015d", i), "x")...)
	}
	pax := (&raw{}).entry('x', "pax", record("comment", strings.Repeat("c", 1000)))
	global := (&raw{}).entry('g', "pax", record("comment", strings.Repeat("c", 1000)))
	var sparse raw
	sparse.entry('x', "pax", bytes.Join([][]byte{record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), record("GNU.sparse.realsize", "1000000000000"), record("GNU.sparse.name", "s")}, nil))
	sparse.entry('0', "s", fmt.Appendf(nil, "1\n0\n0\n%s", make([]byte, 506)))
	for name, tt := range map[string]struct {
		limits Limits
		layer  io.Reader
		words  string
	}{
		"records without end":              {Limits{}, &endless{once: pax.Bytes()}, "bytes of headers"},
		"global records without end":       {Limits{Bytes: 1 << 20, Entries: 2000, Names: 1 << 20}, &endless{once: global.Bytes()}, "entries"},
		"huge record":                      {Limits{}, (&raw{}).entry('x', "pax", record("comment", strings.Repeat("c", 2<<20))).entry('0', "f", nil).end(), "header"},
		"long name":                        {Limits{}, (&raw{}).entry('L', "././@LongLink", []byte(long)).entry('0', "f", nil).end(), "longer than"},
		"long component":                   {Limits{}, archive(t, file{Name: strings.Repeat("n", 300)}), "name too long"},
		"long link of a link":              {Limits{}, archive(t, file{Name: "h", Typeflag: tar.TypeLink, Linkname: long}), "longer than"},
		"name with escapes and lines":      {Limits{}, archive(t, file{Name: "../\x1b[2J\nnext line"}), `".."`},
		"flood of attributes":              {Limits{}, (&raw{}).entry('x', "pax", flood).entry('0', "f", nil).end(), "attributes"},
		"sparse bomb":                      {Limits{}, sparse.end(), "larger than"},
		"owner above 32 bits":              {Limits{}, archive(t, file{Name: "f", Uid: 1 << 33}), "owner"},
		"many tiny entries":                {Limits{Bytes: 1 << 20, Entries: 100, Names: 1 << 20}, &endless{once: (&raw{}).entry('0', "f", nil).Bytes()}, "entries"},
		"nests deep":                       {Limits{Bytes: 1 << 20, Entries: 1000, Names: 1 << 20}, archive(t, file{Name: strings.Repeat("d/", 2000) + "f"}), "entries"},
		"no archive":                       {Limits{}, strings.NewReader(strings.Repeat("nothing", 1000)), "header"},
		"type of no file":                  {Limits{}, (&raw{}).entry('Z', "f", nil).end(), "type"},
		"what follows is without end":      {Limits{}, io.MultiReader((&raw{}).entry('0', "f", nil).end(), io.LimitReader(&endless{once: make([]byte, 1<<20)}, maxTrailer+1<<20)), "follow the end"},
		"attribute that the overlay reads": {Limits{}, archive(t, file{Name: "d/", PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.metacopy": ""}}), "overlay"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, tt.limits, tt.layer, tt.words) })
	}
}

// The table of TestUnpackRefuses on top of other layers: what is refused leaves them as they are.
func TestHostilePaths(t *testing.T) {
	link := func(name, to string) file { return file{Name: name, Typeflag: tar.TypeSymlink, Linkname: to} }
	hard := func(name, to string) file { return file{Name: name, Typeflag: tar.TypeLink, Linkname: to} }
	for name, tt := range map[string]struct {
		files []file
		words string
	}{
		"climbs":                               {[]file{{Name: "../../../../etc/cron.d/x"}}, `".."`},
		"absolute link":                        {[]file{link("x", "/etc"), {Name: "x/passwd"}}, "leads out"},
		"dangling link":                        {[]file{link("x", "nowhere"), {Name: "x/passwd"}}, "not there"},
		"link to the process's root":           {[]file{link("x", "/proc/self/root"), {Name: "x/etc/passwd"}}, "leads out"},
		"link that climbs inside and out":      {[]file{{Name: "d/e/"}, link("d/e/x", "../../../../.."), {Name: "d/e/x/f"}}, "leads out"},
		"hard link out":                        {[]file{hard("x", "../../../state.db")}, `".."`},
		"hard link through a link":             {[]file{link("x", "/etc"), hard("y", "x/passwd")}, "leads out"},
		"hard link to a whiteout":              {[]file{{Name: ".wh.w"}, hard("y", "w")}, "not a file"},
		"hard link to nothing below":           {[]file{hard("y", "a/nothing")}, "no such file"},
		"hard link to a directory below":       {[]file{hard("y", "a")}, "directory"},
		"whiteout of the parent directory":     {[]file{{Name: "a/.wh..."}, {Name: "a/.wh.."}}, "no name"},
		"whiteout with a slash of its own":     {[]file{{Name: ".wh../x"}}, "inside a whiteout"},
		"whiteout through a link":              {[]file{link("x", "/etc"), {Name: "x/.wh.passwd"}}, "leads out"},
		"opaque through a link":                {[]file{link("x", "/etc"), {Name: "x/.wh..wh..opq"}}, "leads out"},
		"a device that is a whiteout":          {[]file{{Name: "x", Typeflag: tar.TypeChar}}, "whiteout"},
		"root that is a link":                  {[]file{link("./", "/etc"), {Name: "passwd"}}, "root of a layer"},
		"directory becomes a link and is used": {[]file{{Name: "d/"}, link("d", "/etc"), {Name: "d/passwd"}}, "leads out"},
		"something inside a file":              {[]file{{Name: "f"}, {Name: "f/x"}}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, Limits{}, archive(t, tt.files...), tt.words) })
	}
}

// What is no attack by itself is kept as it is, and below the store nobody of the host reaches it.
func TestHostileFilesAreConfined(t *testing.T) {
	s := open(t)
	chain := unpack(t, s, []file{
		{Name: "etc/shadow.d/"}, {Name: "tmp/su", Mode: 0o6755},
		{Name: "dev/sda", Typeflag: tar.TypeBlock, Mode: 0o666, Devmajor: 8},
		{Name: "abs", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		{Name: "gone", Typeflag: tar.TypeSymlink, Linkname: "nowhere"},
		{Name: "twice"}, {Name: "twice", Mode: 0o600}, {Name: "twice/"}, {Name: "twice/x"},
	})
	info, err := os.Stat(s.root)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the store is open to others: %v, %v", info.Mode(), err)
	}
	mounts, err := s.View(chain)
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, mounts, func(root string) error {
		for name, want := range map[string]uint32{
			"tmp/su": unix.S_IFREG | 0o6755, "dev/sda": unix.S_IFBLK | 0o666, "abs": unix.S_IFLNK | 0o777, "gone": unix.S_IFLNK | 0o777, "twice": unix.S_IFDIR | 0o755,
		} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(root, name), &st); err != nil || st.Mode != want {
				t.Errorf("%s: mode %o, %v: expected %o", name, st.Mode, err, want)
			}
		}
		return nil
	})
}

// A layer cannot reach through those below it: their links are not followed.
func TestHostileLowerLinks(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t)
	parent := unpack(t, s, []file{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: filepath.Dir(outside)}})
	_, err := s.Unpack(t.Context(), parent, archive(t, file{Name: "stolen", Typeflag: tar.TypeLink, Linkname: "l/outside"}))
	if !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v, want class invalid", err)
	}
	// Inside the container the upper directory takes the link's place, as it stands in the layer.
	chain, err := s.Unpack(t.Context(), parent, archive(t, file{Name: "l/outside"}))
	if err != nil {
		t.Fatal(err)
	}
	view, err := s.View(chain.ChainID)
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, view, func(root string) error {
		data, err := os.ReadFile(root + "/l/outside")
		if string(data) != "l/outside" {
			t.Errorf("it reads %q", data)
		}
		return err
	})
	if data, err := os.ReadFile(outside); err != nil || string(data) != "secret" {
		t.Errorf("outside has %q, %v", data, err)
	}
}

// The kernel's overlay takes no more layers than this (OVL_MAX_STACK), the mount points among them.
func TestMostLayers(t *testing.T) {
	if testing.Short() {
		t.Skip("unpacks hundreds of layers")
	}
	s := open(t)
	var files [][]file
	for i := range MaxLayers {
		files = append(files, []file{{Name: fmt.Sprint(i)}})
	}
	chain := unpack(t, s, files...)
	box, err := s.Prepare(t.Context(), "box", chain)
	if err != nil {
		t.Fatal(err)
	}
	view, err := s.View(chain)
	if err != nil {
		t.Fatal(err)
	}
	for _, mounts := range [][]mount.Mount{box, view} {
		mounted(t, mounts, func(root string) error {
			for _, name := range []string{"0", fmt.Sprint(MaxLayers - 1)} {
				if _, err := os.Lstat(filepath.Join(root, name)); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// What is shown has not been verified: nothing of it is copied to where it would stay.
func TestShownIsNotBorrowed(t *testing.T) {
	s, at := open(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(at, "f"), []byte("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := archive(t, file{Name: "f"})
	diff, err := digest.FromReader(good)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := s.StageShown(Shown{DiffID: diff, At: at, Settle: func(context.Context, digest.Digest, map[string]Attributes) (json.RawMessage, error) {
		return json.RawMessage("{}"), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := shown.Commit(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	above := func() error {
		_, err := s.Unpack(t.Context(), l.ChainID, archive(t, file{Name: "g", Typeflag: tar.TypeLink, Linkname: "f"}))
		return err
	}
	if err := above(); !errors.Is(err, ErrShownBelow) || len(s.Layers()) != 1 {
		t.Errorf("got %v, %d layers", err, len(s.Layers()))
	}
	// The layer itself, with its content, takes the place of what is shown.
	if _, err := s.Unpack(t.Context(), "", archive(t, file{Name: "f"})); err != nil || s.IsShown(l.ChainID) {
		t.Errorf("%v: it is still shown", err)
	}
	if err := above(); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(filepath.Join(s.dir(l.ChainID), "diff/f")); err != nil || string(data) != "f" {
		t.Errorf("it has %q, %v", data, err)
	}
}
