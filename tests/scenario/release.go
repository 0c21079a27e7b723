package scenario

import (
	"os"
	"os/exec"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

// source is the module's directory, seen from that of a suite.
func source() (string, error) { return filepath.Abs("../..") }

// release makes a Debian package of a version, as `make package` does, and puts it into a package source.
func release(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: release VERSION DIR")
	}
	version, dir := args[0], ts.MkAbs(args[1])
	tree := filepath.Join(of(ts).root, "tree-"+version)
	src, err := source()
	ts.Check(err)
	pack := filepath.Join(src, "cmd/sampand/service/package")
	for _, words := range [][]string{
		{"make", "-s", "-o", "build", "install", "DESTDIR=" + tree, "PREFIX=/usr"},
		// The client again, for it says its version.
		{"go", "build", "-ldflags", "-s -w -X github.com/sampan-project/sampan/core/wire.Release=" + version, "-o", filepath.Join(tree, "usr/bin/sampan"), "./cmd/sampan"},
		{pack, "deb", tree, version, dir},
		{pack, "index", dir},
	} {
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			ts.Fatalf("%v: %v\n%s", words, err, out)
		}
	}
}
