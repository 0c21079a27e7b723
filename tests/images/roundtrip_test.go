package images

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// format is a way in which an image lies in a registry.
type format struct {
	name string
	copy []string // options of `skopeo copy` that make it so
	// docker says that Debian's dockerd reads it.
	docker bool
}

var formats = []format{
	{"docker-gzip", []string{"--format", "v2s2", "--dest-compress-format", "gzip"}, true},
	{"oci-gzip", []string{"--format", "oci", "--dest-compress-format", "gzip"}, true},
	{"oci-zstd", []string{"--format", "oci", "--dest-compress-format", "zstd"}, false},
	{"oci-plain", nil, true},
}

// What one pushes another one pulls, and it is the same to the last byte.
func TestRoundTrips(t *testing.T) {
	need(t, "skopeo")
	l := newLab(t)
	r := l.registry()
	docker, podman := l.docker(), l.podman()
	digestOf := func(ref string) string {
		l.t.Helper()
		return l.must("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+ref)
	}
	configOf := func(ref string) string {
		l.t.Helper()
		return l.must("skopeo", "inspect", "--tls-verify=false", "--raw", "--config", "docker://"+ref)
	}
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			l.t = t
			source := r.Host + "/source/" + f.name + ":1"
			made := image(t, busybox(t), strange(t), layerTar(t, regular("format", f.name)))
			if f.copy == nil {
				publish(t, source, made)
			} else { // skopeo packs only what the registry has not in another form
				at, err := layout.Write(filepath.Join(l.dir, f.name+".plain"), empty.Index)
				l.check(err)
				l.check(at.AppendImage(made, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"})))
				l.must("skopeo", slices.Concat([]string{"copy", "-q", "--dest-tls-verify=false"}, f.copy, []string{"oci:" + string(at) + ":1", "docker://" + source})...)
			}
			if media := l.must("skopeo", "inspect", "--tls-verify=false", "--raw", "docker://"+source); f.copy != nil && !strings.Contains(media, "gzip") && !strings.Contains(media, "zstd") {
				t.Fatalf("it is not packed: %s", media)
			}
			digest := digestOf(source)

			// Theirs to ours, and ours to theirs.
			l.ours("pull", "-q", source)
			ours := r.Host + "/ours/" + f.name + ":1"
			l.ours("tag", source, ours)
			l.ours("push", "-q", ours)
			if got := digestOf(ours); got != digest {
				t.Fatalf("pushed as %s, it was %s", got, digest)
			}
			l.must("skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+ours, "oci:"+filepath.Join(l.dir, f.name)+":1")
			_, err := podman("pull", "-q", "--tls-verify=false", ours)
			l.check(err)
			got, err := podman("image", "inspect", "-f", "{{.Digest}}", ours)
			l.check(err)
			if got != digest {
				t.Errorf("podman pulled %s, it was %s", got, digest)
			}
			if f.docker {
				_, err := docker("pull", "-q", ours)
				l.check(err)
				got, err := docker("image", "inspect", "-f", "{{index .RepoDigests 0}}", ours)
				l.check(err)
				if !strings.HasSuffix(got, "@"+digest) {
					t.Errorf("dockerd pulled %s, it was %s", got, digest)
				}
			}

			// What each of them pushes, ours pulls.
			pushes := map[string]func(ref string) error{
				"skopeo": func(ref string) error {
					_, err := l.run("skopeo", "copy", "-q", "--dest-tls-verify=false", "oci:"+filepath.Join(l.dir, f.name)+":1", "docker://"+ref)
					return err
				},
				"podman": func(ref string) error {
					_, err := podman("push", "-q", "--tls-verify=false", ours, "docker://"+ref)
					return err
				},
			}
			if f.docker {
				pushes["dockerd"] = func(ref string) error {
					_, err := docker("tag", ours, ref)
					if err == nil {
						_, err = docker("push", "-q", ref)
					}
					return err
				}
			}
			want := l.ours("image", "inspect", "-f", "{{json .RootFS}}", ours)
			tree := mounted(l, l.ours("image", "inspect", "-f", "{{json .GraphDriver.Data}}", ours))
			for name, push := range pushes {
				ref := r.Host + "/" + name + "/" + f.name + ":1"
				l.check(push(ref))
				theirs := digestOf(ref)
				l.ours("rmi", "-f", l.ours("images", "-q", "--no-trunc", ours))
				l.ours("pull", "-q", ref)
				if got := l.ours("image", "inspect", "-f", "{{index .RepoDigests 0}}", ref); !strings.HasSuffix(got, "@"+theirs) {
					t.Errorf("of %s: pulled %s, it was %s", name, got, theirs)
				}
				if got := l.ours("image", "inspect", "-f", "{{json .RootFS}}", ref); got != want {
					t.Errorf("of %s: layers %s, they were %s", name, got, want)
				}
				for _, d := range differences(mounted(l, l.ours("image", "inspect", "-f", "{{json .GraphDriver.Data}}", ref)), tree) {
					t.Errorf("of %s: %s", name, d)
				}
				if name != "skopeo" && f.docker && configOf(ref) != configOf(source) {
					t.Errorf("of %s: the configuration is another one", name)
				}
				l.ours("rmi", "-f", ref)
				l.ours("pull", "-q", ours)
			}
		})
	}
	l.t = t
	l.clean()
}

// A layer that the registry has in another repository is mounted from there and not sent; the second push of a
// changed image sends only what is new.
func TestPushSendsWhatIsNew(t *testing.T) {
	l := newLab(t)
	r := l.registry()
	f := r.front()
	base := image(t, busybox(t), strange(t))
	publish(t, r.Host+"/team/base:1", base)
	l.ours("pull", "-q", f.Host+"/team/base:1")
	l.ours("tag", f.Host+"/team/base:1", f.Host+"/other/copy:1")
	f.asked()
	out := l.ours("push", f.Host+"/other/copy:1")
	log := f.asked("POST ", "PATCH ", "PUT ")
	mounts, sent := 0, 0
	for _, line := range log {
		if strings.HasPrefix(line, "POST") && strings.Contains(line, "from=team%2Fbase") {
			mounts++
		}
		if strings.HasPrefix(line, "PATCH") {
			sent++
		}
	}
	if mounts != 3 || sent != 0 { // the layers, and the configuration
		t.Errorf("%d mounts, %d uploads: expected 3 and none: %q", mounts, sent, log)
	}
	if strings.Count(out, "Mounted from team/base") != 2 {
		t.Errorf("it says %s", out)
	}
	// A layer on top.
	id := l.ours("create", "--name", "changed", f.Host+"/other/copy:1")
	l.ours("cp", "pid", id+":/new")
	l.ours("commit", id, f.Host+"/other/copy:2")
	l.ours("rm", id)
	f.asked()
	l.ours("push", f.Host+"/other/copy:2")
	if log := f.asked("PATCH "); len(log) != 2 { // the layer, and the configuration
		t.Errorf("%d uploads: expected 2: %q", len(log), log)
	}
	l.ours("rmi", "-f", f.Host+"/other/copy:2")
	l.ours("pull", "-q", f.Host+"/other/copy:2")
	l.clean()
}

// Several pulls of images that share layers fetch each layer once.
func TestPullsTogether(t *testing.T) {
	l := newLab(t)
	r := l.registry()
	f := r.front()
	for i := range 3 {
		publish(t, fmt.Sprintf("%s/shared:%d", r.Host, i), image(t, busybox(t), strange(t), layerTar(t, regular("own", fmt.Sprint(i)))))
	}
	errs := make(chan error)
	for i := range 6 {
		go func() {
			_, err := l.sampan("pull", "-q", fmt.Sprintf("%s/shared:%d", f.Host, i%3))
			errs <- err
		}()
	}
	for range 6 {
		l.check(<-errs)
	}
	seen := map[string]int{}
	for _, line := range f.asked("/blobs/") {
		seen[line]++
	}
	layers, again := 0, 0
	for line, n := range seen {
		if n > 2 { // a configuration is read by each of the two pulls of an image
			again++
			t.Errorf("%d times %s", n, line)
		}
		layers++
	}
	if layers != 3+2+3 {
		t.Errorf("%d blobs were asked for: expected 8", layers)
	}
	l.clean()
}

// Others read the store where it is.
func TestStoreIsALayout(t *testing.T) {
	need(t, "skopeo")
	l := newLab(t)
	r := l.registry()
	digest := publish(t, r.Host+"/demo:1", image(t, busybox(t), strange(t)))
	l.ours("pull", "-q", r.Host+"/demo:1")
	store := "oci:" + filepath.Join(l.Root, "data/images") + ":"
	if got := l.must("skopeo", "inspect", "--format", "{{.Digest}}", store+"1"); got != digest {
		t.Errorf("skopeo sees %s, it is %s", got, digest)
	}
	l.must("skopeo", "copy", "-q", "--preserve-digests", store+"1", "oci:"+l.dir+"/copy:1")
	if got := l.must("skopeo", "inspect", "--format", "{{.Digest}}", "oci:"+l.dir+"/copy:1"); got != digest {
		t.Errorf("the copy is %s, it was %s", got, digest)
	}
}
