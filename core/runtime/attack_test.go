package runtime

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
)

// The tests of the attack*_test.go files each carry out an attack that some container runtime once
// gave way to, and are named after it: attack_process_test.go those on processes and files,
// attack_mount_test.go those on the filesystem, attack_proc_test.go those on procfs and devices. This
// file has what they share. Each was seen to succeed with its defence taken out.

// raceTime is how long an attack that has to win a race is tried, and fewest how often at least.
const (
	raceTime = 700 * time.Millisecond
	fewest   = 30
)

// race repeats an attempt while two names of one filesystem are being exchanged.
func race(t *testing.T, a, b string, attempt func()) {
	t.Helper()
	var over atomic.Bool
	var took atomic.Int64 // of the last attempt
	took.Store(int64(time.Millisecond))
	ended := make(chan error)
	go func() {
		var err error
		for n := 1; !over.Load() && err == nil; n++ {
			err = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			// A rest now and then: on a slow machine no attempt would ever come through.
			if n%100 == 0 {
				time.Sleep(time.Duration(rand.N(2 * took.Load())))
			}
		}
		ended <- err
	}()
	end := time.Now().Add(raceTime)
	for n := 0; (n < fewest || time.Now().Before(end)) && !t.Failed(); n++ {
		start := time.Now()
		attempt()
		took.Store(int64(time.Since(start)))
	}
	over.Store(true)
	if err := <-ended; err != nil {
		t.Errorf("exchange %s and %s: %v", a, b, err)
	}
}

// attempt runs a container to its end and removes it. It may be refused.
func (b *bench) attempt(spec *specs.Spec) (string, error) {
	b.t.Helper()
	c, output, err := b.create(spec)
	if err != nil {
		return "", err
	}
	if err := c.Start(b.t.Context()); err != nil {
		return "", err
	}
	out := output()
	if _, err := linux.Wait(c.PidFD()); err != nil {
		b.t.Error(err)
	}
	if err := c.Delete(b.t.Context(), false); err != nil {
		b.t.Error(err)
	}
	return out, nil
}

// refused reports a container that was made although it must not be, or refused for another reason.
func (b *bench) refused(spec *specs.Spec, reason string) {
	b.t.Helper()
	out, err := b.attempt(spec)
	if err == nil || !strings.Contains(err.Error(), reason) {
		b.t.Errorf("got %q, %v; want an error with %q", out, err, reason)
	}
}

// volume makes a directory of files and, where the text begins with "->", symlinks.
func volume(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "volume")
	plant(t, dir, files)
	return dir
}

func plant(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		at := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		if link, ok := strings.CutPrefix(text, "->"); ok && err == nil {
			err = os.Symlink(link, at)
		} else if err == nil {
			err = os.WriteFile(at, []byte(text), 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func bind(source, target string) specs.Mount {
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: []string{"rbind"}}
}

// await waits for a file that a container writes.
func await(t testing.TB, name string) string {
	t.Helper()
	for range 500 {
		if text, err := os.ReadFile(name); err == nil && len(text) > 0 {
			return strings.TrimSpace(string(text))
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the container has not written %s", filepath.Base(name))
	return ""
}
