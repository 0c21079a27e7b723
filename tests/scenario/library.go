package scenario

import (
	"os"
	"os/exec"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

// containersImage builds tests/peers/image, which copies and verifies images as podman and skopeo do.
func containersImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: containersimage FILE")
	}
	// A machine without Go, such as the virtual one, is given the program.
	if made, err := os.ReadFile(filepath.Join(of(ts).bin, "containersimage")); err == nil {
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), made, 0o755))
		return
	}
	src, err := source()
	ts.Check(err)
	cmd := exec.Command("go", "build", "-tags", "containers_image_openpgp", "-o", ts.MkAbs(args[0]), ".")
	cmd.Dir = filepath.Join(src, "tests", "peers", "image")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("build containersimage: %v\n%s", err, out)
	}
}
