package scenario

import (
	"os"
	"os/exec"
	"path/filepath"
)

// xfsQuota tries what the scenarios about limits of bytes do: there are kernels with XFS and without its quotas.
func xfsQuota() bool {
	dir, err := os.MkdirTemp("", "quota")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "image")
	const smallest = 320 << 20 // that mkfs.xfs makes; the file is sparse
	if os.WriteFile(image, nil, 0o600) != nil || os.Truncate(image, smallest) != nil || exec.Command("mkfs.xfs", "-q", image).Run() != nil {
		return false
	}
	at := filepath.Join(dir, "at")
	if os.Mkdir(at, 0o700) != nil || exec.Command("mount", "-o", "loop,pquota", image, at).Run() != nil {
		return false
	}
	return exec.Command("umount", at).Run() == nil
}
