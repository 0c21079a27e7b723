package build

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// keyVersion changes when equal operations come to mean something else: old rows are then never found.
const keyVersion = 1

// keyOf digests what a step's result depends on. The parts are encoded as JSON, whose maps are in
// the order of their keys.
func keyOf(op string, parts any) (string, error) {
	data, err := json.Marshal(struct {
		Version int
		Op      string
		Parts   any
	}{keyVersion, op, parts})
	if err != nil {
		return "", fmt.Errorf("build: %w", err)
	}
	return digest.FromBytes(data).Encoded(), nil
}
