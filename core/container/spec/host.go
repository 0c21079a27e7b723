package spec

import "golang.org/x/sys/unix"

// HostMemory is the memory of the host in bytes.
func HostMemory() (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, err
	}
	return uint64(info.Totalram) * uint64(info.Unit), nil //nolint:unconvert // its type differs between architectures
}
