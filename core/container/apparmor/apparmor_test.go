package apparmor

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestCompiles has the parser compile the profile; it needs no kernel with AppArmor for it.
func TestCompiles(t *testing.T) {
	parser, err := exec.LookPath("/usr/sbin/apparmor_parser")
	if err != nil {
		t.Skip("apparmor_parser is not installed")
	}
	for _, sender := range []string{"unconfined", "/usr/sbin/sampand"} {
		cmd := exec.Command(parser, "--skip-kernel-load", "--skip-cache")
		cmd.Stdin = strings.NewReader(Text(sender))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", sender, err, out)
		}
	}
	cmd := exec.Command(parser, "--skip-kernel-load", "--skip-cache")
	cmd.Stdin = strings.NewReader(strings.Replace(Text("unconfined"), "deny mount,", "deny mounting,", 1))
	if cmd.Run() == nil {
		t.Error("the parser takes anything")
	}
}

func TestLoad(t *testing.T) {
	name, err := Load()
	if !Enabled() {
		if name != "" || err != nil {
			t.Errorf("without AppArmor: %q, %v", name, err)
		}
		return
	}
	if err != nil {
		t.Skipf("this machine cannot load profiles: %v", err)
	}
	if list, err := os.ReadFile("/sys/kernel/security/apparmor/profiles"); err == nil && !strings.Contains(string(list), Profile+" (enforce)") {
		t.Errorf("%s is not among the kernel's profiles", Profile)
	}
}
