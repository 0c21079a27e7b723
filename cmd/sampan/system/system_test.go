package system

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/wire"
)

// A template that no event can fill is refused before the first event.
func TestEventTemplate(t *testing.T) {
	for format, want := range map[string]int{
		"{{.Nosuch}}": cli.CodeUsage, "{{.Actor": cli.CodeUsage, "": 0, "json": 0,
		"{{slice .Actor.ID 0 12}} {{.Actor.Attributes.name}} {{index .Actor.Attributes \"image\"}}": 0,
	} {
		var out bytes.Buffer
		_, err := eventPrinter(&cli.CLI{Out: &cli.Out{Writer: &out}}, format)
		if got := cli.Code(err); got != want || out.Len() > 0 {
			t.Errorf("--format %q: got %d (%v), printed %q, want %d", format, got, err, &out, want)
		}
	}
}

// Of the build cache, df names no share that could be reclaimed.
func TestReclaimable(t *testing.T) {
	used := &wire.Volume{UsageData: &wire.VolumeUsage{Size: 100}}
	got := map[string]string{}
	for _, row := range summary(wire.DiskUsage{Volumes: []*wire.Volume{used}, BuildCache: []wire.BuildCacheRecord{{Size: 239}}}) {
		got[row.Type] = row.Reclaimable
	}
	want := map[string]string{"Images": "0B", "Containers": "0B", "Local Volumes": "100B (100%)", "Build Cache": "239B"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
