package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What an administrator should know of the data root, though the daemon works with it.

// otherImages tells of images that Docker's other storage drivers have left in the data root: each has a directory of
// its own, and none can use another's.
func otherImages(dataRoot string) (warnings []string) {
	for _, driver := range append(slices.Sorted(maps.Keys(otherDrivers)), "overlay") {
		if entries, err := os.ReadDir(filepath.Join(dataRoot, driver)); err == nil && len(entries) > 0 {
			warnings = append(warnings, fmt.Sprintf("--data-root %q has images of the storage driver %s, which overlay2 cannot use: they are not shown, and left alone; save them with the engine that made them and load them here, or pull them again", dataRoot, driver))
		}
	}
	return warnings
}

// selinuxEnforce says whether the policy of SELinux is enforced (selinux(8)).
const selinuxEnforce = "/sys/fs/selinux/enforce"

// containerTypes are the types of files that the policy lets containers read or run (container_selinux(8)).
var containerTypes = []string{"container_var_lib_t", "container_ro_file_t", "container_file_t", "container_share_t"}

// unlabelled tells that containers could not read their images under SELinux, which the engine does not label.
func unlabelled(enforce, dataRoot string) (warnings []string) {
	if state, err := os.ReadFile(enforce); err != nil || strings.TrimSpace(string(state)) != "1" {
		return nil
	}
	label := make([]byte, 1024)
	n, err := unix.Getxattr(dataRoot, "security.selinux", label)
	if err != nil && !errors.Is(err, unix.ENODATA) {
		return nil // a filesystem without labels has one for all
	}
	// user:role:type:level
	given := strings.TrimRight(string(label[:max(n, 0)]), "\x00")
	if parts := strings.Split(given, ":"); len(parts) > 2 && slices.Contains(containerTypes, parts[2]) {
		return nil
	}
	return []string{fmt.Sprintf("SELinux is enforced, and --data-root %q has the label %q: containers may not be able to read their images: expected the type container_var_lib_t (semanage fcontext -a -t container_var_lib_t '%s(/.*)?', then restorecon -R %s)", dataRoot, given, dataRoot, dataRoot)}
}
