package wire

// Version and Commit of this build, set by the linker.
var (
	Version = "dev"
	Commit  = ""
)
