package wire

// Release and Commit of this build, set by the linker.
var (
	Release = "dev"
	Commit  = "unknown"
)
