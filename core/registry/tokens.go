package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sampan-project/sampan/core/fault"
)

const (
	// tokenClient is what token servers know us as; a refresh token may be good only for the client that it was
	// given to.
	tokenClient = "sampan"
	maxToken    = 256 << 10 // bytes of a token server's answer; real ones have some thousand
)

// dial asks a registry how it wants to be spoken to, and for a token where another server gives them out. scheme
// is the one that it answered in.
func (c *Client) dial(ctx context.Context, reg name.Registry, at endpoint, scopes []string) (round http.RoundTripper, scheme string, err error) {
	round, scheme, t, err := c.handshake(ctx, reg, at, scopes)
	if t != nil && err == nil {
		_, _, err = t.renew(ctx, "", "")
	}
	return round, scheme, err
}

// handshake is dial without the token, which tokens, if there are any, are to be asked for.
func (c *Client) handshake(ctx context.Context, reg name.Registry, at endpoint, scopes []string) (http.RoundTripper, string, *tokens, error) {
	inner := c.transport(at)
	asked, err := transport.Ping(ctx, reg, inner)
	if err != nil {
		return nil, "", nil, err
	}
	home := &home{inner: inner, url: url.URL{Scheme: "https", Host: reg.RegistryStr()}}
	if asked.Insecure {
		home.url.Scheme = "http"
	}
	basic := at.auth
	var t *tokens
	if strings.EqualFold(asked.Scheme, "bearer") {
		if t, err = newTokens(ctx, inner, home.url, at, asked.Parameters); err != nil {
			return nil, "", nil, err
		}
		t.scopes = scopes
		home.inner, basic, asked = t, authn.Anonymous, &transport.Challenge{}
	}
	// The library's own requests, as for tags, take what it wrapped as it is, and ask nothing before.
	round, err := transport.FromToken(reg, basic, home, asked, nil)
	return round, home.url.Scheme, t, err
}

// home sends what is for the registry in the scheme that it answered in.
type home struct {
	inner http.RoundTripper
	url   url.URL
}

func (h *home) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == h.url.Host && r.URL.Scheme != h.url.Scheme {
		r = r.Clone(r.Context())
		r.URL.Scheme = h.url.Scheme
	}
	return h.inner.RoundTrip(r)
}

// tokens carries requests to a registry with the token of a server that gives them out (distribution,
// docs/content/spec/auth: token.md, and oauth.md for identity tokens, which are OAuth 2.0's refresh tokens,
// RFC 6749, section 6).
type tokens struct {
	inner   http.RoundTripper
	own     url.URL // the registry: nobody else is shown a token
	realm   *url.URL
	service string
	plain   bool // the registry may be spoken to in plain HTTP
	login   authn.AuthConfig
	offline bool // ask for an identity token

	mu       sync.Mutex
	scopes   []string
	token    string
	identity string // the identity token that the server gave
}

func newTokens(ctx context.Context, inner http.RoundTripper, own url.URL, at endpoint, challenge map[string]string) (*tokens, error) {
	login, err := authn.Authorization(ctx, at.auth)
	if err != nil {
		return nil, err
	}
	realm, err := url.Parse(challenge["realm"])
	if err != nil || realm.Host == "" {
		return nil, fault.New(fault.Unavailable, "registry %s: token server %q: expected a URL", at.host, oneLine(challenge["realm"]))
	}
	t := &tokens{inner: inner, own: own, realm: realm, service: challenge["service"], plain: at.plain, login: *login, token: login.RegistryToken}
	return t, t.permitted(realm)
}

// permitted refuses a token server that the login must not go to: one in plain HTTP, unless the registry is
// in plain HTTP itself, and one that only this machine can reach, unless the administrator trusts the registry.
func (t *tokens) permitted(at *url.URL) error {
	literal, err := netip.ParseAddr(at.Hostname())
	inside := err == nil && (literal.Unmap().IsLoopback() || literal.Unmap().IsPrivate() || literal.IsLinkLocalUnicast() || literal.IsUnspecified() || literal.IsMulticast())
	switch {
	case at.User != nil:
	case at.Scheme == "https" && (!inside || t.plain || origin(at) == origin(&t.own)):
		return nil
	case at.Scheme == "http" && t.own.Scheme == "http" && t.plain:
		return nil
	}
	return fault.New(fault.Unavailable, "registry %s names the token server %q: expected https, and a host that others reach too", t.own.Host, at.Redacted())
}

// origin is scheme, host and port of an address.
func origin(u *url.URL) string {
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

func (t *tokens) RoundTrip(r *http.Request) (*http.Response, error) {
	if origin(r.URL) != origin(&t.own) {
		return t.inner.RoundTrip(r)
	}
	t.mu.Lock()
	token := t.token
	t.mu.Unlock()
	for mine := false; ; {
		resp, err := t.send(r, token)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || mine || r.Body != nil && r.Body != http.NoBody && r.GetBody == nil {
			return resp, err
		}
		// It has run out, or is not for this: for a blob of another repository, say.
		scope, ok := bearerScope(resp.Header.Values("WWW-Authenticate"))
		if !ok || t.login.RegistryToken != "" {
			return resp, nil
		}
		resp.Body.Close()
		if token, mine, err = t.renew(r.Context(), token, scope); err != nil {
			return nil, err
		}
	}
}

// send leaves the request as it is, and its body to be read again to those below.
func (t *tokens) send(r *http.Request, token string) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return t.inner.RoundTrip(r)
}

// renew asks for a token in the place of one that did not do, unless somebody else has just done so; mine is whether
// it was asked for here.
func (t *tokens) renew(ctx context.Context, failed, scope string) (token string, mine bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := scope == "" || slices.Contains(t.scopes, scope)
	if t.login.RegistryToken != "" || t.token != failed && known {
		return t.token, false, nil
	}
	if !known {
		// First, as some servers look at the first one only.
		t.scopes = append([]string{scope}, t.scopes...)
	}
	req, err := t.request(ctx)
	if err != nil {
		return "", false, err
	}
	answer, err := t.ask(req)
	if err != nil {
		return "", false, err
	}
	if answer.Refresh != "" {
		if t.identity = answer.Refresh; t.login.IdentityToken != "" {
			t.login.IdentityToken = answer.Refresh
		}
	}
	t.token = answer.Token
	return t.token, true, nil
}

// request asks with the identity token where there is one, and else with name and password, or nobody's.
func (t *tokens) request(ctx context.Context) (*http.Request, error) {
	if t.login.IdentityToken != "" {
		form := url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {t.login.IdentityToken}, "service": {t.service},
			"scope": {strings.Join(t.scopes, " ")}, "client_id": {tokenClient},
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.realm.String(), strings.NewReader(form.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	u := *t.realm
	q := u.Query()
	if t.service != "" {
		q.Set("service", t.service)
	}
	for _, scope := range t.scopes {
		q.Add("scope", scope)
	}
	if t.offline {
		q.Set("offline_token", "true")
		q.Set("client_id", tokenClient)
	}
	if t.login.Username != "" {
		q.Set("account", t.login.Username)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && t.login.Username != "" {
		req.SetBasicAuth(t.login.Username, t.login.Password)
	}
	return req, err
}

// tokenAnswer is what a token server sends; OAuth 2.0 has another name for the token.
type tokenAnswer struct {
	Token   string `json:"token"`
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

func (t *tokens) ask(req *http.Request) (tokenAnswer, error) {
	secret := t.login.IdentityToken != "" || t.login.Username != ""
	client := http.Client{Transport: t.inner, CheckRedirect: func(to *http.Request, via []*http.Request) error {
		if secret && origin(to.URL) != origin(t.realm) || len(via) > 9 {
			return fault.New(fault.Unavailable, "token server %s redirects to %q: expected its own address", t.realm.Host, to.URL.Redacted())
		}
		return t.permitted(to.URL)
	}}
	var answer tokenAnswer
	resp, err := client.Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return answer, err
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxToken+1))
	if err != nil {
		return answer, err
	}
	// What is wrong is not shown: it may be a secret.
	if len(raw) > maxToken || json.Unmarshal(raw, &answer) != nil {
		return answer, fault.New(fault.Unavailable, "token server %s: expected at most %d bytes of JSON", t.realm.Host, maxToken)
	}
	if answer.Token = cmp.Or(answer.Access, answer.Token); answer.Token == "" {
		return answer, fault.New(fault.Unavailable, "token server %s: its answer has no token", t.realm.Host)
	}
	return answer, nil
}

// bearerScope returns the scope of a Bearer challenge (RFC 9110, section 11.6.1, in the form that RFC 6750, section 3,
// gives it), and whether there is one.
func bearerScope(challenges []string) (scope string, ok bool) {
	for _, c := range challenges {
		at := strings.Index(strings.ToLower(c), "bearer ")
		if at < 0 {
			continue
		}
		for rest := c[at+len("bearer "):]; ; {
			key, value, more := strings.Cut(rest, "=")
			if !more {
				return "", true
			}
			if strings.HasPrefix(value, `"`) {
				value, rest, _ = strings.Cut(value[1:], `"`)
			} else {
				value, rest, _ = strings.Cut(value, ",")
			}
			if strings.EqualFold(strings.Trim(key, ", \t"), "scope") {
				return value, true
			}
		}
	}
	return "", false
}
