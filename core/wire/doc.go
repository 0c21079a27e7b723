// Package wire has the JSON shapes of both HTTP APIs: Docker's Engine API (v1.24 to v1.50, names
// and omissions as in its reference) and /sampan/v1. It has no behaviour, but for the
// writing and reading of long lists, and imports nothing of ours, so that the client, the server and the script
// rooms can share it.
package wire

// The API versions that the server speaks.
const (
	APIVersion    = "1.50"
	MinAPIVersion = "1.24"
)

// Error is the body of every answer with a status of 400 or more.
type Error struct {
	Message string `json:"message"`
}
