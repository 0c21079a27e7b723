package registry

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

// Parts of a blob come from the first place that has them; a place that sends other bytes than it was
// asked for is not believed, and one that was away may come back.
func TestParts(t *testing.T) {
	blob := []byte(strings.Repeat("0123456789", 1000))
	how, asked := "", 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return
		}
		asked++
		switch how {
		case "whole":
			r.Header.Del("Range")
		case "other range":
			r.Header.Set("Range", "bytes=0-9")
		case "away":
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	d := ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	parts, err := New(Options{Mirrors: map[string][]string{host: {"http://127.0.0.1:1"}}}).Parts(host+"/image", nil)
	if err != nil {
		t.Fatal(err)
	}
	read := func(at, n int64) (string, error) {
		r, err := parts.Open(t.Context(), d, at, n)
		if err != nil {
			return "", err
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		return string(got), err
	}
	for _, part := range [][2]int64{{0, 1}, {95, 10}, {9990, 10}, {0, 10000}} {
		want := string(blob[part[0] : part[0]+part[1]])
		if got, err := read(part[0], part[1]); err != nil || got != want {
			t.Errorf("%v: %d bytes, %v", part, len(got), err)
		}
	}
	for _, c := range []struct {
		how   string
		class fault.Class
	}{{"whole", fault.NotImplemented}, {"other range", fault.Invalid}, {"away", fault.NotFound}} {
		how = c.how
		if _, err := read(20, 20); !fault.Is(err, c.class) {
			t.Errorf("%s: %v", c.how, err)
		}
	}
	how, asked = "", 0
	if _, err := read(20, 20); err != nil || asked != 1 {
		t.Errorf("after it came back: %v, asked %d times", err, asked)
	}
	if _, err := parts.Open(t.Context(), ocispec.Descriptor{Digest: "x"}, 0, 1); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
