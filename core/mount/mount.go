// Package mount has the Mount value, which layers, volumes and secrets emit and the runtime
// executes, and the execution itself: mounting, propagation, masking, overlay.
//
// A Mount is pure data. Whoever needs a filesystem somewhere describes it and hands the
// description on; only the process that is to see the mount performs it, inside its own mount
// namespace, so that no mount of a container ever shows on the host.
package mount

// Mount describes one filesystem to be mounted.
type Mount struct {
	// Type is the filesystem type as in mount(2): "overlay", "tmpfs", "proc", or "bind".
	Type string `json:"type,omitempty"`
	// Source is what is mounted: a device, a directory for bind, or a name without meaning.
	Source string `json:"source,omitempty"`
	// Target is the absolute path inside the root filesystem; "/" is the root itself.
	Target string `json:"target,omitempty"`
	// Options are fstab-style options, including those the kernel knows as flags: "ro", "rbind".
	Options []string `json:"options,omitempty"`
	// Layers is the directory whose files Detached can show through a mapping of ids: of an overlay the one
	// below which all its directories are, of a bind its source.
	Layers string `json:"layers,omitempty"`
}
