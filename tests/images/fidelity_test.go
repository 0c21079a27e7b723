package images

import (
	"maps"
	"os/exec"
	"path/filepath"
	"testing"
)

// umoci builds the OCI's own reference for unpacking; "" where its module cannot be had.
func umoci(t *testing.T, dir string) string {
	t.Helper()
	program := filepath.Join(dir, "umoci.program")
	out, err := exec.Command("go", "-C", "umoci", "build", "-o", program, "github.com/opencontainers/umoci/cmd/umoci").CombinedOutput()
	if err != nil {
		t.Logf("umoci cannot be built, and is not compared with: %s", out)
		return ""
	}
	return program
}

// A file of an unpacked image is what it is with others, by type, mode, owner, time with nanoseconds,
// attributes, links, content and device number.
func TestUnpacksAsOthersDo(t *testing.T) {
	need(t, "skopeo")
	l := newLab(t)
	r := l.registry()
	program, docker := umoci(t, l.dir), l.docker()
	for _, test := range []struct {
		name   string
		layers func(t *testing.T) [][]byte
		docker bool // Docker can unpack it
	}{
		{"busybox", func(t *testing.T) [][]byte { return [][]byte{busybox(t)} }, true},
		{"strange", func(t *testing.T) [][]byte { return [][]byte{strange(t)} }, true},
		{"whiteouts", func(t *testing.T) [][]byte { return [][]byte{strange(t), above(t)} }, true},
		// Docker links only within a layer.
		{"across", func(t *testing.T) [][]byte { return [][]byte{strange(t), across(t)} }, false},
		{"debian", func(t *testing.T) [][]byte { return [][]byte{debian(t)} }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			l.t = t
			ref := r.Host + "/" + test.name + ":1"
			publish(t, ref, image(t, test.layers(t)...))
			l.ours("pull", "-q", ref)
			ours := mounted(l, l.ours("image", "inspect", "-f", "{{json .GraphDriver.Data}}", ref))
			if len(ours) < 20 {
				t.Fatalf("only %d files", len(ours))
			}
			beside := func(name string, theirs tree) {
				mine := maps.Clone(ours)
				// Docker passes over what an archive tells of the root, and that of busybox tells nothing.
				if name == "dockerd" || test.name == "busybox" {
					delete(mine, "")
					delete(theirs, "")
				}
				for _, d := range differences(mine, theirs) {
					t.Errorf("beside %s: %s", name, d)
				}
			}
			if test.docker {
				_, err := docker("pull", "-q", ref)
				l.check(err)
				inspected, err := docker("image", "inspect", "-f", "{{json .GraphDriver.Data}}", ref)
				l.check(err)
				beside("dockerd", mounted(l, inspected))
			}
			if program != "" {
				at := filepath.Join(l.dir, test.name)
				l.must("skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+ref, "oci:"+at+".layout:1")
				l.must(program, "raw", "unpack", "--image", at+".layout:1", at)
				beside("umoci", read(t, at))
			}
		})
	}
	l.t = t
	l.clean()
}
