package route

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// maxAuth bounds the login header; an identity token is a few KiB.
const maxAuth = 64 << 10

// RegistryAuth reads the header X-Registry-Auth: JSON in base64, of either alphabet, padded or not.
// No header, and the JSON of nothing, is no login.
func (r *Request) RegistryAuth() (*wire.AuthConfig, error) {
	given := r.Header.Get("X-Registry-Auth")
	if given == "" {
		return nil, nil
	}
	if len(given) > maxAuth {
		return nil, fault.New(fault.Invalid, "X-Registry-Auth header: %d bytes: expected at most %d", len(given), maxAuth)
	}
	alphabet := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(given, "="))
	b, err := base64.RawURLEncoding.DecodeString(alphabet)
	var auth *wire.AuthConfig
	if err == nil {
		err = json.Unmarshal(b, &auth)
	}
	if err != nil { // the value may be a secret: not in the message
		return nil, fault.New(fault.Invalid, "invalid X-Registry-Auth header: expected the JSON of a login in base64url")
	}
	if auth == nil || *auth == (wire.AuthConfig{}) {
		return nil, nil
	}
	return auth, nil
}
