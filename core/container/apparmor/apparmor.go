// Package apparmor has the profile that confines containers on hosts with AppArmor, and hands it to the
// kernel.
//
// What the profile forbids is what Docker's default one does (docs.docker.com, "AppArmor security
// profiles for Docker"): to mount, to write to the parts of /proc and /sys that belong to the host, to
// trace or signal processes that are not in a container. It is a second wall behind capabilities,
// seccomp and masked paths. It is written in the language of apparmor.d(5), without any include, so that
// it needs no file of the host.
package apparmor

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// Profile is the name of the default profile.
const Profile = "sampan-default"

// Unconfined is the name for no profile.
const Unconfined = "unconfined"

// The kernel's files.
const (
	parameter = "/sys/module/apparmor/parameters/enabled"
	own       = "/proc/self/attr/current"
)

// Enabled reports whether this host's kernel enforces profiles.
func Enabled() bool {
	data, err := os.ReadFile(parameter)
	return err == nil && strings.HasPrefix(string(data), "Y")
}

// Load hands the default profile to the kernel, in the place of what an earlier daemon has loaded, and
// returns its name; "" on a host that has no AppArmor. It takes apparmor_parser(8), which compiles it.
func Load() (string, error) {
	if !Enabled() {
		return "", nil
	}
	parser, err := parserProgram()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(parser, "--replace", "--skip-cache")
	cmd.Stdin = strings.NewReader(Text(daemonProfile()))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("load AppArmor profile %s: %s: %w: %s", Profile, parser, err, strings.Join(strings.Fields(string(out)), " "))
	}
	return Profile, nil
}

func parserProgram() (string, error) {
	for _, name := range []string{"apparmor_parser", "/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fault.New(fault.Unavailable, "AppArmor is enabled, and apparmor_parser is not installed: containers have no profile")
}

// daemonProfile is what this process is confined by: it and its monitor send signals to containers.
func daemonProfile() string {
	data, err := os.ReadFile(own)
	name, _, _ := strings.Cut(strings.TrimRight(string(data), "\x00\n"), " (")
	if err != nil || name == "" || strings.ContainsAny(name, " \t\n\"{}") {
		return Unconfined
	}
	return name
}

// Text is the default profile. sender is the profile of the processes that may signal containers.
func Text(sender string) string {
	return fmt.Sprintf(`profile %[1]s flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,

  # Processes of a container know each other, and obey the engine and the host's administrator.
  signal (send, receive) peer=%[1]s,
  signal (receive) peer=unconfined,
  signal (receive) peer=%[2]s,
  ptrace (trace, read, tracedby, readby) peer=%[1]s,

  # No filesystem is mounted, also by who has the capability.
  deny mount,

  # Of procfs the processes may be written to, and what a namespace of the container's own confines.
  deny /proc/* w,
  deny /proc/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w,
  deny /proc/sys/[^kn]** w,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny /proc/sys/net/[^ic]** w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,

  # Of sysfs the cgroups.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
`, Profile, sender)
}
