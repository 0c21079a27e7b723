package registry

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// dockerHub is the name of Docker's registry in references, and hubAddress what clients log in to.
const (
	dockerHub  = "docker.io"
	hubAddress = "https://index.docker.io/v1/"
)

// Login checks a login with the registry at its server address. Nothing is kept: the client stores it, or the identity
// token that it is answered, which then takes the password's place.
func (c *Client) Login(ctx context.Context, auth wire.AuthConfig) (wire.AuthResponse, error) {
	host := serverHost(auth.ServerAddress)
	login, err := authenticator(&auth)
	if err != nil {
		return wire.AuthResponse{}, err
	}
	if login == authn.Anonymous {
		return wire.AuthResponse{}, fault.New(fault.Invalid, "login to %s: expected a user name and a password, or a token", host)
	}
	at := endpoint{host: host, plain: c.IsInsecure(ctx, host), auth: login}
	options := []name.Option{name.StrictValidation}
	if at.plain {
		options = append(options, name.Insecure)
	}
	reg, err := name.NewRegistry(host, options...)
	if err != nil {
		return wire.AuthResponse{}, &fault.Field{Field: "serveraddress", Given: auth.ServerAddress, Expected: "the host of a registry, such as registry.example.com:5000"}
	}
	identity, err := c.tryLogin(ctx, reg, at)
	if err != nil {
		return wire.AuthResponse{}, err
	}
	return wire.AuthResponse{IdentityToken: cmp.Or(identity, auth.IdentityToken), Status: "Login Succeeded"}, nil
}

// tryLogin asks for a token, where the registry gives out tokens, and for the API's base with it. identity is what a
// token server gives in the place of the password, where it does.
func (c *Client) tryLogin(ctx context.Context, reg name.Registry, at endpoint) (identity string, err error) {
	round, scheme, t, err := c.handshake(ctx, reg, at, nil)
	if err != nil {
		return "", loginError(reg.Scheme()+"://"+reg.RegistryStr()+"/v2/", err)
	}
	base := scheme + "://" + reg.RegistryStr() + "/v2/" // where it answered, which for the loopback may be either scheme
	if t != nil {
		t.offline = true
		if _, _, err := t.renew(ctx, "", ""); err != nil {
			return "", loginError(base, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: round}).Do(req)
	if err != nil {
		return "", loginError(base, err)
	}
	defer resp.Body.Close()
	if t != nil {
		identity = t.identity
	}
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return "", loginError(base, err)
	}
	return identity, nil
}

// serverHost is the registry's host in what clients send as the server address.
func serverHost(address string) string {
	if address == "" || address == hubAddress {
		return dockerHub
	}
	if _, rest, ok := strings.Cut(address, "://"); ok {
		address = rest
	}
	host, _, _ := strings.Cut(address, "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		return dockerHub
	}
	return host
}

func loginError(base string, err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) {
		_, message := said(answer)
		return fault.New(fault.Unauthorized, "login attempt to %s failed with status: %d %s: unauthorized: %s",
			base, answer.StatusCode, http.StatusText(answer.StatusCode), message)
	}
	return registryError(err)
}

// registryError is for failures that concern no repository.
func registryError(err error) error {
	var answer *transport.Error
	if err == nil || !errors.As(err, &answer) {
		return otherError(err)
	}
	code, message := said(answer)
	return stateError(answer, code, message)
}
