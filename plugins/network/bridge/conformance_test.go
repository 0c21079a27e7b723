package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sampan-project/sampan/plugins/sdk/plugintest"
)

func TestConformance(t *testing.T) {
	program := filepath.Join(t.TempDir(), "sampan-network-bridge")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	plugintest.Network(t, plugintest.Config{Program: program})
}
