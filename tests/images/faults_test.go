package images

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/tests/scenario"
)

const (
	bulk = 16 << 20 // the size of a layer that takes a while
	some = 6 << 20  // how much of it comes before something happens
)

func noise(size int) string {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
	return string(data)
}

// once calls fn when a blob has come to some bytes, the first time.
func (f *front) once(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pace = time.Millisecond
	var first sync.Once
	f.each = func(total int) {
		if total >= some {
			first.Do(fn)
		}
	}
}

// still lets blobs pass as they come.
func (f *front) still() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pace, f.each = 0, nil
}

var fromByte = regexp.MustCompile(`bytes=(\d+)-`)

// resumed checks that of the layers all was asked for but what there was.
func (l *lab) resumed(f *front) {
	l.t.Helper()
	asked := f.asked("/blobs/")
	for _, line := range asked {
		if m := fromByte.FindStringSubmatch(line); m != nil {
			if n, _ := strconv.Atoi(m[1]); n >= some/2 {
				return
			}
		}
	}
	l.t.Errorf("nothing was asked for from the middle: %q", asked)
}

// A registry that goes away in the middle of a blob and comes back is gone on with, by the same pull; one that
// stays away makes an error, and the next pull goes on where that one was.
func TestRegistryIsKilled(t *testing.T) {
	l := newLab(t, "--max-download-attempts", "3")
	r := l.registry()
	f := r.front()
	publish(t, r.Host+"/bulk:1", image(t, busybox(t), layerTar(t, regular("noise", noise(bulk)))))
	back := make(chan struct{})
	f.once(func() {
		r.kill()
		go func() { r.start(); close(back) }()
	})
	l.ours("pull", "-q", f.Host+"/bulk:1")
	<-back
	f.still()
	l.resumed(f)
	l.clean()

	l.ours("rmi", "-f", f.Host+"/bulk:1")
	f.once(r.kill)
	if out, err := l.sampan("pull", "-q", f.Host+"/bulk:1"); err == nil || !strings.Contains(out, "sha256:") {
		t.Errorf("%v: expected an error that names the blob: %s", err, out)
	}
	l.clean()
	f.still()
	f.asked()
	r.start()
	l.ours("pull", "-q", f.Host+"/bulk:1")
	l.resumed(f)
	l.clean()
}

// The daemon dies in the middle of a pull, and the next one's pull goes on.
func TestDaemonIsKilled(t *testing.T) {
	l := newLab(t)
	r := l.registry()
	f := r.front()
	publish(t, r.Host+"/bulk:1", image(t, busybox(t), layerTar(t, regular("noise", noise(bulk)))))
	f.once(func() { l.check(l.Kill()) })
	if out, err := l.sampan("pull", "-q", f.Host+"/bulk:1"); err == nil {
		t.Fatalf("pulled it: %s", out)
	}
	f.still()
	l.check(scenario.Poll(func() error { return l.Start() }))
	l.clean()
	if left := l.ours("images", "-aq"); left != "" {
		t.Errorf("there are images: %s", left)
	}
	f.asked()
	l.ours("pull", "-q", f.Host+"/bulk:1")
	l.resumed(f)
	l.clean()
	// In the middle of a push: the registry has the image after the next one.
	l.ours("tag", f.Host+"/bulk:1", r.Host+"/other:1")
	push := make(chan error)
	go func() {
		_, err := l.sampan("push", "-q", r.Host+"/other:1")
		push <- err
	}()
	l.check(l.Kill())
	<-push //nolint:errcheck // the daemon may have died before or after its answer
	l.check(l.Start())
	l.clean()
	l.ours("push", "-q", r.Host+"/other:1")
	l.ours("rmi", "-f", r.Host+"/other:1", f.Host+"/bulk:1")
	l.ours("pull", "-q", r.Host+"/other:1")
	l.clean()
}

// A disk that is full in the middle of a download or of unpacking leaves what there was, and room.
func TestDiskIsFull(t *testing.T) {
	l := newLab(t)
	r := l.registry()
	publish(t, r.Host+"/small:1", image(t, busybox(t)))
	publish(t, r.Host+"/noise:1", image(t, busybox(t), layerTar(t, regular("noise", noise(bulk)))))
	zeros := layerTar(t, regular("zeros", strings.Repeat("\x00\x01", bulk)))
	publish(t, r.Host+"/zeros:1", gzipped(t, busybox(t), zeros))
	l.check(l.Stop())
	data := filepath.Join(l.Root, "data")
	l.check(os.RemoveAll(data))
	l.check(os.Mkdir(data, 0o711))
	l.check(unix.Mount("tmpfs", data, "tmpfs", 0, "size=20m"))
	t.Cleanup(func() {
		_ = l.Stop()
		l.check(unix.Unmount(data, unix.MNT_DETACH))
	})
	l.check(l.Start())
	l.ours("pull", "-q", r.Host+"/small:1")
	free := func() uint64 {
		var s unix.Statfs_t
		l.check(unix.Statfs(data, &s))
		return s.Bfree * uint64(s.Bsize)
	}
	before := free()
	for _, name := range []string{"noise", "zeros"} {
		out, err := l.sampan("pull", "-q", r.Host+"/"+name+":1")
		if err == nil || !strings.Contains(out, "no space left on device") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		l.clean()
		l.check(scenario.Poll(func() error {
			if now := free(); now+1<<20 < before {
				return &os.PathError{Op: "free " + strconv.FormatUint(now, 10), Path: name, Err: unix.ENOSPC}
			}
			return nil
		}))
	}
	l.ours("image", "inspect", r.Host+"/small:1")
	l.check(unix.Mount("tmpfs", data, "tmpfs", unix.MS_REMOUNT, "size=200m"))
	for _, name := range []string{"noise", "zeros"} {
		l.ours("pull", "-q", r.Host+"/"+name+":1")
	}
	l.clean()
}
