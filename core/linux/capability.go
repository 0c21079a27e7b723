package linux

import "strings"

// capabilityNames are the capabilities by number (capabilities(7), linux/capability.h).
var capabilityNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

// CapabilityMask turns names such as CAP_KILL into a mask. unknown are the names that this package
// does not know.
func CapabilityMask(names []string) (mask uint64, unknown []string) {
next:
	for _, name := range names {
		short, _ := strings.CutPrefix(strings.ToUpper(name), "CAP_")
		for n, known := range capabilityNames {
			if short == known {
				mask |= 1 << n
				continue next
			}
		}
		unknown = append(unknown, name)
	}
	return mask, unknown
}

// CapabilityNames are the names of every capability that this package knows, as CAP_KILL.
func CapabilityNames() []string {
	names := make([]string, len(capabilityNames))
	for i, name := range capabilityNames {
		names[i] = "CAP_" + name
	}
	return names
}
