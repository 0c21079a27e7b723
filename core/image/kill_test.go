package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sampan-project/sampan/core/fault"
)

// The test program is its own victim: with this in its environment it loads and removes an image again
// and again, in the directory that it names, until it is killed.
const victimOf = "SAMPAN_TEST_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimOf); dir != "" {
		fmt.Println(victim(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func victim(dir string) error {
	ctx := context.Background()
	archive, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	w, err := openDir(dir)
	if err != nil {
		return err
	}
	if err := w.Reconcile(ctx, nil); err != nil {
		return err
	}
	for i := 0; ; i++ {
		if err := w.Load(ctx, bytes.NewReader(archive), nil); err != nil {
			return err
		}
		if i%4 < 2 {
			continue // so that a kill finds the image now and then
		}
		if _, err := w.Remove(ctx, "demo:1", false, false); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
}

// Killed at any moment, the store has after the next start either the whole image or nothing of it.
func TestKilled(t *testing.T) {
	archive := dockerArchive(t, map[string]v1.Image{"demo:1": made(t, "1")}).Bytes()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	whole := 0
	for range 12 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), victimOf+"="+dir)
		cmd.Stdin = bytes.NewReader(archive)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50*time.Millisecond + time.Duration(rand.IntN(60_000))*time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		if out.Len() > 0 {
			t.Fatalf("the victim says: %s", out.Bytes())
		}
		w := openWorld(t, dir)
		if err := w.Reconcile(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		want := "0 0 0 0"
		if len(w.all()) > 0 {
			whole++
			want = "4 0 2 0"
			if err := w.Save(t.Context(), []string{"demo:1"}, io.Discard); err != nil {
				t.Error(err)
			}
		}
		if n := w.leftovers(t); n != want {
			t.Errorf("with %d images, left %s, want %s", len(w.all()), n, want)
		}
		_ = w.Close()
		if err := w.o.DB.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("whole images found: %d", whole)
}
