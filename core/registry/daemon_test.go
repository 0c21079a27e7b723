package registry

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// TestRealRegistry pushes to and pulls from the reference implementation, where it is installed.
func TestRealRegistry(t *testing.T) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	host := startRegistry(t, program)
	b, c := blobs{}, New(Options{})
	image := testImage(t, b, Host(), ocispec.MediaTypeImageManifest)
	if _, err := c.Push(t.Context(), host+"/team/app:1", image, nil, nil); err != nil {
		t.Fatal(err)
	}
	found, err := c.Resolve(t.Context(), host+"/team/app:1", ocispec.Platform{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range found.Manifest.Layers {
		got, err := found.ReadBlob(t.Context(), d, 2<<20)
		if err != nil || !bytes.Equal(got, b[d.Digest]) {
			t.Errorf("blob %s: %v", d.Digest, err)
		}
	}
	if _, err := c.Resolve(t.Context(), host+"/team/app:2", ocispec.Platform{}, nil); err == nil {
		t.Error("a tag that is not there was found")
	} else {
		t.Log(err)
	}
}

// startRegistry runs the program on a free port of the loopback until the test ends.
func startRegistry(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", filepath.Join(dir, "data"), host)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "serve", file)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 100 {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/", nil)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			return host
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the registry does not answer")
	return ""
}
