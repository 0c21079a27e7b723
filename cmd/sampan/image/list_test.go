package image

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
)

func TestNames(t *testing.T) {
	tests := []struct {
		tags, digests []string
		want          string
	}{
		{nil, nil, "[{<none> <none> <none>}]"},
		{[]string{"a:1", "h:5000/b:2"}, nil, "[{a 1 <none>} {h:5000/b 2 <none>}]"},
		{[]string{"a:1"}, []string{"a@sha256:x", "b@sha256:y"}, "[{a 1 sha256:x} {b <none> sha256:y}]"},
		{[]string{"<none>:<none>"}, []string{"<none>@<none>"}, "[{<none> <none> <none>}]"},
		{nil, []string{"a@sha256:x"}, "[{a <none> sha256:x}]"},
		{[]string{"a:1", "a:2"}, []string{"a@sha256:x", "a@sha256:y"}, "[{a 1 sha256:x} {a 1 sha256:y} {a 2 sha256:x} {a 2 sha256:y}]"},
		{nil, []string{"a@sha256:x", "a@sha256:y"}, "[{a <none> sha256:x} {a <none> sha256:y}]"},
	}
	for _, tt := range tests {
		got := fmt.Sprint(names(wire.ImageSummary{RepoTags: tt.tags, RepoDigests: tt.digests}, true))
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%v %v: %s", tt.tags, tt.digests, diff)
		}
	}
}

// Without digests, several of them are no reason for several rows.
func TestNamesWithoutDigests(t *testing.T) {
	i := wire.ImageSummary{RepoTags: []string{"a:1"}, RepoDigests: []string{"a@sha256:x", "a@sha256:y", "b@sha256:x", "b@sha256:y"}}
	if diff := cmp.Diff("[{a 1 <none>} {b <none> }]", fmt.Sprint(names(i, false))); diff != "" {
		t.Error(diff)
	}
}

func TestCanonical(t *testing.T) {
	for ref, want := range map[string]string{
		"busybox:1": "docker.io/library/busybox:1", "a/b:1": "docker.io/a/b:1", "h:5000/a:1": "h:5000/a:1", "localhost/a": "localhost/a",
	} {
		if got := canonical(ref); got != want {
			t.Errorf("%s: got %s", ref, got)
		}
	}
}
