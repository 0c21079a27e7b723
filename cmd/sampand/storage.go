package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
)

// otherDrivers are Docker's storage drivers that are not here, and why.
var otherDrivers = map[string]string{
	"aufs":           "aufs is no part of Linux, and Docker has dropped it",
	"btrfs":          "overlay2 works on btrfs",
	"devicemapper":   "Docker has dropped devicemapper, whose loop devices were slow and filled up",
	"fuse-overlayfs": "the daemon is root's, who has the kernel's overlay",
	"vfs":            "vfs copies all of an image for each container",
	"zfs":            "overlay2 works on zfs from OpenZFS 2.2 on",
}

// checkStorageDriver accepts overlay for overlay2, which is what it became: a layer is a directory, and not one
// hard link for each file of the layers below.
func (o *options) checkStorageDriver() error {
	switch o.StorageDriver {
	case "overlay2":
		return nil
	case "overlay":
		o.warnings = append(o.warnings, `--storage-driver "overlay": Docker has dropped it, and overlay2 takes its place`)
		return nil
	}
	expected := "overlay2"
	if why, known := otherDrivers[o.StorageDriver]; known {
		expected += ": " + why
	}
	return &fault.Field{Field: "--storage-driver", Given: o.StorageDriver, Expected: expected, Nearest: fault.Nearest(o.StorageDriver, []string{"overlay2"})}
}

// tryOverlay makes an overlay below the data root, which nobody sees, so that a filesystem that cannot have one is told at
// the start and not by the first container.
func tryOverlay(dataRoot string) (err error) {
	if !tellsTypes(dataRoot) {
		return unfit(dataRoot, "its directories do not tell the types of files (d_type; xfs was made without ftype=1)")
	}
	dir, err := os.MkdirTemp(filepath.Join(dataRoot, "tmp"), "overlay")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, name := range []string{"lower", "upper", "work", "at"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(dir+"/lower/file", nil, 0o600); err != nil {
		return err
	}
	tree, err := mount.Detached(filepath.Join(dir, "at"), []mount.Mount{{
		Type: "overlay", Source: "overlay", Target: "/",
		Options: []string{"lowerdir=" + dir + "/lower", "upperdir=" + dir + "/upper", "workdir=" + dir + "/work"},
	}}, nil)
	if err != nil {
		return unfit(dataRoot, err.Error())
	}
	defer tree.Close()
	// Whiteouts are what it keeps of removed files, and not every filesystem can.
	var st unix.Stat_t
	if err := unix.Unlinkat(int(tree.Fd()), "file", 0); err != nil {
		return unfit(dataRoot, fmt.Sprintf("no file of a layer can be removed: %v", err))
	}
	if err := unix.Lstat(dir+"/upper/file", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return unfit(dataRoot, "it keeps no whiteouts")
	}
	return nil
}

func unfit(dataRoot, why string) error {
	return fault.New(fault.Unavailable, "--data-root %q: overlay2 cannot work on %s: %s: expected a filesystem such as ext4, xfs with ftype=1, btrfs or tmpfs",
		dataRoot, filesystem(dataRoot), why)
}

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
