package registry

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// A refused login names the address that refused it: a registry on the loopback may answer in either scheme.
func TestRefusedLoginNamesTheAddress(t *testing.T) {
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	secure, plain := httptest.NewTLSServer(refuse), httptest.NewServer(refuse)
	defer secure.Close()
	defer plain.Close()
	for _, base := range []string{secure.URL, plain.URL} {
		_, host, _ := strings.Cut(base, "://")
		_, err := New(Options{}).Login(t.Context(), wire.AuthConfig{Username: "user", Password: "wrong", ServerAddress: host})
		if !fault.Is(err, fault.Unauthorized) || !strings.Contains(err.Error(), "login attempt to "+base+"/v2/ failed with status: 401") {
			t.Errorf("%s: %v", base, err)
		}
	}
}
