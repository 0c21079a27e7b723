package cli

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNatural(t *testing.T) {
	want := []string{"", "01", "1", "2", "10", "a", "a.b", "a1b", "a2", "a02b", "a2c", "a10", "web.2", "web.10", "web.10.x", "web.x"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Natural)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
