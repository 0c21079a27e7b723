package crash

import (
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sampan-project/sampan/tests/scenario"
)

// crawl is how fast layers come, in bytes a second: slow enough that they are shown for a moment before they are there.
const crawl = 16 << 20

type slow struct{ http.ResponseWriter }

func (s slow) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		var m int
		m, err = s.ResponseWriter.Write(p[:min(len(p), 64<<10)])
		n, p = n+m, p[m:]
		time.Sleep(time.Duration(m) * time.Second / crawl)
	}
	return n, err
}

// serveLazy starts a registry with an eStargz image, and returns the image's name.
func (b *bench) serveLazy(t *testing.T) string {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			w = slow{w}
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	there := strings.TrimPrefix(server.URL, "http://") + "/lazy:1"
	image, err := scenario.Stargz()
	b.check(err)
	ref, err := name.ParseReference(there, name.Insecure)
	b.check(err)
	b.check(remote.Write(ref, image))
	return there
}

// lazies are what a user does with an image that is not there yet. A save waits for all of it.
func lazies(there string) []operation {
	pull, read := sampan("pull", "-q", there), sampan("run", "--rm", there, "cat", "/data/set", "/data/39")
	whole, remove := sampan("save", "-o", "saved.tar", there), sampan("rmi", "-f", there)
	held := sampan("run", "-d", "--name", "it", there, "sleep", "1000")
	return []operation{
		{name: "lazy_pull", do: pull, again: cmds(pull, read, whole), after: cmds(remove)},
		{name: "lazy_run", do: read, again: cmds(read, whole), after: cmds(remove)},
		{name: "lazy_pull_again", before: cmds(pull), do: pull, again: cmds(read, pull), after: cmds(remove)},
		{name: "lazy_unpack", before: cmds(pull), do: whole, again: cmds(read, whole, read), after: cmds(remove)},
		{name: "lazy_rmi", before: cmds(pull), do: remove, again: cmds(pull, read), after: cmds(remove)},
		{name: "lazy_start", before: cmds(pull, held), start: true, again: cmds(sampan("exec", "it", "cat", "/data/38"), read, whole), after: cmds(removeIt, remove)},
		{name: "lazy_rm", before: cmds(pull, held), do: removeIt, again: cmds(removeIt, read), after: cmds(remove)},
	}
}

// TestLazyKilledAtEveryPoint is TestKilledAtEveryPoint for layers that are shown before they are there: the process that
// shows them goes on, and the next daemon with it.
func TestLazyKilledAtEveryPoint(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("layers are shown by FUSE, which this machine has not")
	}
	dir, bin := t.TempDir(), programs(t)
	if err := os.Symlink(filepath.Join(scenario.Programs(t), "sampan-lazy"), filepath.Join(bin, "sampan-lazy")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SAMPAN_CRASH", dir)
	b := &bench{Daemon: scenario.Alone(t, bin), t: t, dir: dir}
	b.check(os.WriteFile(filepath.Join(b.Root, "daemon.json"), []byte(`{"lazy-pull": true}`), 0o600))
	b.prepare()
	there := b.serveLazy(t)
	random, shown := rand.New(rand.NewPCG(uint64(time.Now().Unix()/86400), 1)), false
	for _, o := range lazies(there) {
		t.Run(o.name, func(t *testing.T) {
			b.t = t
			defer b.tidy(o)
			points := b.record(o)
			b.nothingShown("recorded")
			shown = shown || slices.ContainsFunc(points, func(p string) bool { return strings.Contains(p, "layer shown") })
			numbers := random.Perm(len(points))
			if os.Getenv("SAMPAN_CRASH_ALL") == "" {
				numbers = numbers[:min(sample, len(numbers))]
			}
			slices.Sort(numbers)
			for _, n := range numbers {
				b.killAt(o, n+1)
				b.nothingShown(fmt.Sprintf("killed at point %d", n+1))
			}
		})
	}
	b.t = t
	if !shown {
		t.Error("no layer was shown")
	}
	b.logsWhole()
}

// nothingShown waits until what was shown and fetched of layers is gone with the image.
func (b *bench) nothingShown(at string) {
	b.t.Helper()
	b.check(scenario.Poll(func() error {
		for _, pattern := range []string{"data/lazy/*", "run/lazy/layers/*"} {
			left, err := filepath.Glob(filepath.Join(b.Root, pattern))
			if err != nil || len(left) > 0 {
				return fmt.Errorf("%s: %v is left, %w", at, left, err)
			}
		}
		return nil
	}))
}
