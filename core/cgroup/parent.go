package cgroup

import "golang.org/x/sys/unix"

// RemoveEmpty removes a cgroup that containers were below, from every hierarchy in which nothing is
// left in it. It is not an error that something is.
func RemoveEmpty(name string) error {
	m, err := Load(name)
	if err != nil {
		return err
	}
	for _, h := range m.joined() {
		_ = unix.Rmdir(h.mount + m.path) // EBUSY: it is in use
	}
	return nil
}
