package main

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// storageStatus is what info says of the storage driver, in the words of Docker's overlay2.
func storageStatus(dataRoot string) [][2]string {
	return [][2]string{
		{"Backing Filesystem", filesystem(dataRoot)},
		{"Supports d_type", strconv.FormatBool(tellsTypes(dataRoot))},
		// Overlays are mounted without either (core/layer), so that an upper directory is a layer as it is.
		{"Using metacopy", "false"},
		{"Native Overlay Diff", "true"},
		{"userxattr", "false"},
	}
}

// tellsTypes reports whether the entries of a directory come with their types (d_type of getdents(2)), which
// overlay needs to tell a whiteout.
func tellsTypes(dir string) bool {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	buffer := make([]byte, 4096)
	n, err := unix.Getdents(fd, buffer)
	const typeOffset = 18 // of struct linux_dirent64
	return err == nil && n > typeOffset && buffer[typeOffset] != unix.DT_UNKNOWN
}
