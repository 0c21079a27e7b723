package image

import (
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/registry"
)

// A mirror that breaks every blob off, or sends other bytes, does not keep an image from being pulled: what it has
// sent is not asked for again, and what it has invented is thrown away.
func TestMirrorDies(t *testing.T) {
	const came = 3 << 20
	for _, lies := range []bool{false, true} {
		t.Run(map[bool]string{false: "breaks off", true: "lies"}[lies], func(t *testing.T) {
			host, there := registryHost(t), registryHost(t)
			image, _ := bulky(t)
			push(t, host, "demo:1", image)
			push(t, there, "demo:1", image)
			home, mirror := &gate{}, &gate{cut: came}
			if lies {
				mirror.cut, mirror.lies = 0, true
			}
			front := home.serve(t, host)
			w := newWorld(t)
			w.o.Registry.Reload(registry.Options{Mirrors: map[string][]string{front: {"http://" + mirror.serve(t, there)}}})
			if err := w.Pull(t.Context(), front+"/demo:1", "", nil, nil); err != nil {
				t.Fatal(err)
			}
			if n := w.leftovers(t); n != "5 0 3 0" || partOf(t, w) != nil {
				t.Errorf("left %s", n)
			}
			resumed := strings.Contains(strings.Join(home.ranges, " "), "bytes=3145728-")
			if len(home.ranges) == 0 || resumed == lies {
				t.Errorf("asked the registry for %q", home.ranges)
			}
		})
	}
}
