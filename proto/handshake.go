package proto

// What both sides of the go-plugin handshake must agree on. The cookie is no secret: it only keeps
// people from running a plugin by hand.
const (
	CookieKey   = "SAMPAN_PLUGIN"
	CookieValue = "a1c6e0f2-network-storage-volume-build"

	// Version is the version of the protocol as go-plugin negotiates it: all services of v1.
	Version = 1

	// Service is the name under which go-plugin knows the gRPC services of a plugin, all together.
	Service = "sampan"

	// OperationKey is the metadata key of a call's operation id.
	OperationKey = "sampan-operation"

	// Prefix begins the file name of every plugin: sampan-KIND-NAME.
	Prefix = "sampan-"

	// MaxMessage bounds a message in either direction. Reconcile of some ten thousand endpoints fits.
	MaxMessage = 16 << 20
)
