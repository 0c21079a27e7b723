package registry

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func newTransport(trusting bool) http.RoundTripper {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   8,
		ForceAttemptHTTP2:     true,
		// Blobs are compressed already, and a digest is of the bytes as they are stored.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if trusting {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the administrator listed the registry as insecure
	}
	return t
}

func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// endpoint is a place that may have a repository: a mirror or the registry itself.
type endpoint struct {
	host  string
	plain bool // plain HTTP is permitted
	auth  authn.Authenticator
	// mirror says that the next endpoint is tried when this one fails.
	mirror bool
}

// endpoints returns the places of a repository in the order they are to be asked.
func (c *Client) endpoints(ctx context.Context, named reference.Named, auth *wire.AuthConfig) ([]endpoint, error) {
	login, err := authenticator(auth)
	if err != nil {
		return nil, err
	}
	host := reference.Domain(named)
	var list []endpoint
	for _, m := range c.rules.Load().mirrors[host] {
		// A login is for the registry it was given for, not for whoever mirrors it.
		list = append(list, endpoint{host: m.host, plain: m.plain || c.IsInsecure(ctx, m.host), auth: authn.Anonymous, mirror: true})
	}
	return append(list, endpoint{host: host, plain: c.IsInsecure(ctx, host), auth: login}), nil
}

// authenticator returns what the client sent as its login; nil and an empty one are no login.
func authenticator(auth *wire.AuthConfig) (authn.Authenticator, error) {
	if auth == nil || auth.Username == "" && auth.Auth == "" && auth.IdentityToken == "" && auth.RegistryToken == "" {
		return authn.Anonymous, nil
	}
	config := authn.AuthConfig{
		Username: auth.Username, Password: auth.Password,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
	}
	if auth.Auth != "" && auth.Username == "" {
		pair, err := base64.StdEncoding.DecodeString(auth.Auth)
		user, password, ok := strings.Cut(string(pair), ":")
		if err != nil || !ok {
			return nil, fault.New(fault.Invalid, "login: auth: expected user:password in base64")
		}
		config.Username, config.Password = user, password
	}
	return authn.FromConfig(config), nil
}

// repository is a repository at one endpoint, with a client that authenticates itself.
type repository struct {
	endpoint
	named  reference.Named
	name   name.Repository
	scheme string
	round  http.RoundTripper
	http   *http.Client

	uploads, attempts int // of the rules at that time
	stalled, wait     time.Duration
}

// connect asks the endpoint how it wants to be spoken to, and for a token where it gives out tokens.
func (c *Client) connect(ctx context.Context, named reference.Named, at endpoint, action string) (*repository, error) {
	repo, err := repositoryName(named, at)
	if err != nil {
		return nil, err
	}
	round, scheme, err := c.dial(ctx, repo.Registry, at, []string{repo.Scope(action)})
	if err != nil {
		return nil, err
	}
	r := c.rules.Load()
	return &repository{endpoint: at, named: named, name: repo, scheme: scheme, round: round, http: &http.Client{Transport: round}, uploads: r.uploads, attempts: r.attempts, stalled: r.stalled, wait: r.wait}, nil
}

func repositoryName(named reference.Named, at endpoint) (name.Repository, error) {
	options := []name.Option{name.StrictValidation}
	if at.plain {
		options = append(options, name.Insecure)
	}
	repo, err := name.NewRepository(at.host+"/"+reference.Path(named), options...)
	if err != nil {
		return repo, fault.New(fault.Invalid, "invalid reference format: %q", reference.FamiliarString(named))
	}
	return repo, nil
}

// transport returns what carries the requests to an endpoint.
func (c *Client) transport(at endpoint) http.RoundTripper {
	var t http.RoundTripper = &guard{inner: c.verified}
	if at.plain {
		t = c.trusting
	}
	t = &bounded{t, maxAnswer, maxTelling}
	return transport.NewUserAgent(&patient{transport.NewRetry(t)}, "sampan/"+wire.Release)
}

// guard refuses plain HTTP. Without it an address of a private network would be tried in plain HTTP
// when TLS fails, which nobody has permitted.
type guard struct{ inner http.RoundTripper }

var errPlain = errors.New("plain HTTP is not permitted for this registry: see --insecure-registry")

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errPlain
	}
	return g.inner.RoundTrip(r)
}

// url returns the address of a thing of the repository ("manifests", "blobs").
func (r *repository) url(kind, id string) string {
	u := url.URL{Scheme: r.scheme, Host: r.name.RegistryStr(), Path: "/v2/" + r.name.RepositoryStr() + "/" + kind + "/" + id}
	return u.String()
}

// do sends a request. The caller closes the body of an answer, which has one of the expected states.
func (r *repository) do(ctx context.Context, method, address string, header http.Header, expected ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, expected...); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}
