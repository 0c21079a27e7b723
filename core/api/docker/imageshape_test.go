package docker

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/wire"
)

// TestImageConfig is about the fields of an image's configuration that clients find though they are not set: from
// v1.50 on those of an image, before also those of a container.
func TestImageConfig(t *testing.T) {
	always := []string{"Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir"}
	before := append(slices.Clone(always), "AttachStderr", "AttachStdin", "AttachStdout", "Domainname", "Hostname", "Image", "OpenStdin", "StdinOnce", "Tty")
	slices.Sort(before)
	for version, want := range map[route.Version][]string{50: always, 49: before} {
		text, err := json.Marshal(shapeImage(wire.ImageInspect{Config: &wire.ContainerConfig{}}, version))
		if err != nil {
			t.Fatal(err)
		}
		var answer struct{ Config map[string]any }
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(answer.Config))); diff != "" {
			t.Errorf("v%s (-want +got):\n%s", version, diff)
		}
	}
}
