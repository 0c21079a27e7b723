package registry

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// tokenServer gives out tokens that last for a number of requests, and identity tokens to whoever asks for one.
type tokenServer struct {
	mu       sync.Mutex
	asked    []string
	issued   int
	lasts    int    // requests that a token is good for; 0 is for ever
	identity string // the one that is good; "" gives out none
	rotates  bool
	left     map[string]int
	scopes   map[string]string
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	query := r.URL.Query()
	refuse := func() {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who is that?"}]}`)
	}
	var scope, refresh string
	switch r.Method {
	case http.MethodPost:
		if err := r.ParseForm(); err != nil {
			refuse()
			return
		}
		s.asked = append(s.asked, fmt.Sprintf("POST %s %s %s", r.PostForm.Get("grant_type"), r.PostForm.Get("client_id"), r.PostForm.Get("service")))
		if r.PostForm.Get("refresh_token") != s.identity || s.identity == "" {
			refuse()
			return
		}
		scope = r.PostForm.Get("scope")
		if s.rotates {
			s.identity += "+"
			refresh = s.identity
		}
	default:
		user, password, _ := r.BasicAuth()
		s.asked = append(s.asked, fmt.Sprintf("GET %s offline=%s %s", query.Get("account"), query.Get("offline_token"), query.Get("service")))
		if user+":"+password != "ann:secret" {
			refuse()
			return
		}
		scope = strings.Join(query["scope"], " ")
		if query.Get("offline_token") == "true" {
			refresh = s.identity
		}
	}
	s.issued++
	token := fmt.Sprintf("token%d", s.issued)
	s.left[token], s.scopes[token] = s.lasts, scope
	kind := map[bool]string{true: "access_token", false: "token"}[r.Method == http.MethodPost]
	_, _ = fmt.Fprintf(w, `{%q:%q,"refresh_token":%q}`, kind, token, refresh)
}

// permits reports whether a request has a token that is good for it.
func (s *tokenServer) permits(r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	left, ok := s.left[token]
	if !ok || s.lasts > 0 && left == 0 {
		return false
	}
	s.left[token]--
	if r.URL.Path == "/v2/" {
		return true
	}
	want := scopeOf(r)
	return slices.ContainsFunc(strings.Fields(s.scopes[token]), func(scope string) bool {
		return scope == want || strings.HasSuffix(scope, ":push,pull") && strings.HasPrefix(want, strings.TrimSuffix(scope, "push,pull"))
	})
}

func scopeOf(r *http.Request) string {
	if strings.Contains(r.URL.Path, "/other/") {
		return "repository:other:pull"
	}
	action := "pull"
	if r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		action = "push,pull"
	}
	return "repository:app:" + action
}

// guarded is a registry whose token server is at another address.
func guarded(t *testing.T, s *tokenServer) string {
	t.Helper()
	s.left, s.scopes = map[string]int{}, map[string]string{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.permits(r) {
				next.ServeHTTP(w, r)
				return
			}
			challenge := fmt.Sprintf(`Bearer realm="%s/token",service="the hub"`, server.URL)
			if r.URL.Path != "/v2/" {
				challenge += fmt.Sprintf(`,scope="%s",error="invalid_token"`, scopeOf(r))
			}
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
		})
	})
}

// A login gives an identity token, with which all else goes; the password is asked for once.
func TestIdentityToken(t *testing.T) {
	s := &tokenServer{identity: "me"}
	host, c := guarded(t, s), New(Options{})
	login := wire.AuthConfig{Username: "ann", Password: "secret", ServerAddress: host}
	got, err := c.Login(t.Context(), login)
	if diff := cmp.Diff(wire.AuthResponse{IdentityToken: "me", Status: "Login Succeeded"}, got); err != nil || diff != "" {
		t.Fatalf("%v %s", err, diff)
	}
	identity := &wire.AuthConfig{Username: "ann", IdentityToken: "me", ServerAddress: host}
	if _, err := c.Push(t.Context(), host+"/app", testImage(t, blobs{}, Host(), ocispec.MediaTypeImageManifest), identity, nil); err != nil {
		t.Fatal(err)
	}
	image, err := c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, identity)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.ReadBlob(t.Context(), image.Manifest.Config, 1<<20); err != nil {
		t.Error(err)
	}
	want := []string{"GET ann offline=true the hub", "POST refresh_token sampan the hub", "POST refresh_token sampan the hub"}
	if diff := cmp.Diff(want, s.asked); diff != "" {
		t.Error(diff)
	}
	// It is checked by a login, and remains what it was.
	if got, err := c.Login(t.Context(), *identity); err != nil || got.IdentityToken != "me" {
		t.Errorf("%+v %v", got, err)
	}
	// When it has been revoked, nothing goes any more, and nothing of it is told.
	s.identity = "another"
	if _, err := c.Login(t.Context(), *identity); !fault.Is(err, fault.Unauthorized) || strings.Contains(err.Error(), "refresh") {
		t.Errorf("%v", err)
	}
	_, err = c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, identity)
	if !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "incorrect username or password: who is that?") {
		t.Errorf("%v", err)
	}
	// A server that has none leaves the password in its place.
	s.identity = ""
	if got, err := c.Login(t.Context(), login); err != nil || got.IdentityToken != "" {
		t.Errorf("%+v %v", got, err)
	}
}

// A token that runs out is renewed in the middle of what is done, also with an identity token that changes with each.
func TestTokensAreRenewed(t *testing.T) {
	for name, login := range map[string]*wire.AuthConfig{
		"password": {Username: "ann", Password: "secret"}, "identity": {IdentityToken: "me"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &tokenServer{identity: "me", rotates: true}
			host, c := guarded(t, s), New(Options{})
			b := blobs{}
			if _, err := c.Push(t.Context(), host+"/app", testImage(t, b, Host(), ocispec.MediaTypeImageManifest), login, nil); err != nil {
				t.Fatal(err)
			}
			s.identity, s.lasts = "me", 2
			image, err := c.Resolve(t.Context(), host+"/app", ocispec.Platform{}, login)
			if err != nil {
				t.Fatal(err)
			}
			for range 8 {
				if _, err := image.ReadBlob(t.Context(), image.Manifest.Layers[0], 2<<20); err != nil {
					t.Fatal(err)
				}
			}
			// All that fail at once share one new token.
			s.mu.Lock()
			s.left, s.lasts = map[string]int{}, 0
			before := s.issued
			s.mu.Unlock()
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					if _, err := image.ReadBlob(t.Context(), image.Manifest.Layers[0], 2<<20); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if n := s.issued - before; n != 1 {
				t.Errorf("%d tokens for all", n)
			}
			if s.issued < 5 {
				t.Errorf("%d tokens", s.issued)
			}
		})
	}
}

// A token is asked for more rights when the registry says that it lacks them.
func TestTokenScopes(t *testing.T) {
	s := &tokenServer{}
	host, c := guarded(t, s), New(Options{})
	at := endpoint{host: host, plain: true}
	var err error
	if at.auth, err = authenticator(&wire.AuthConfig{Username: "ann", Password: "secret"}); err != nil {
		t.Fatal(err)
	}
	repo, err := c.connect(t.Context(), mustParse(t, host+"/app"), at, "pull")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v2/other/manifests/latest", "/v2/app/manifests/latest", "/v2/other/manifests/latest"} {
		if _, err := repo.do(t.Context(), http.MethodGet, "http://"+host+path, nil, http.StatusNotFound); err != nil { //nolint:bodyclose // there is none
			t.Errorf("%s: %v", path, err)
		}
	}
	if diff := cmp.Diff([]string{"repository:app:pull", "repository:other:pull repository:app:pull"}, []string{s.scopes["token1"], s.scopes["token2"]}); diff != "" || s.issued != 2 {
		t.Errorf("%d tokens: %s", s.issued, diff)
	}
}

// Where a login may be sent to.
func TestTokenServers(t *testing.T) {
	for _, test := range []struct {
		registry, realm string
		plain, ok       bool
	}{
		{"https://hub.example", "https://auth.example/token", false, true},
		{"https://hub.example", "http://auth.example/token", true, false},
		{"http://hub.example", "http://auth.example/token", true, true},
		{"https://10.0.0.1", "https://10.0.0.1:443/token", false, true},
		{"https://10.0.0.1:5000", "https://10.0.0.1/token", false, false},
		{"https://10.0.0.1:5000", "https://10.0.0.1/token", true, true},
		{"http://127.0.0.1:5000", "http://127.0.0.1:5001/token", true, true},
		{"https://hub.example", "https://169.254.169.254/token", false, false},
		{"https://hub.example", "https://[::ffff:127.0.0.1]/token", false, false},
		{"https://hub.example", "https://user:word@auth.example/", true, false},
		{"https://hub.example", "file:///etc/passwd", true, false},
	} {
		own, _ := url.Parse(test.registry)
		realm, _ := url.Parse(test.realm)
		if err := (&tokens{own: *own, plain: test.plain}).permitted(realm); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		} else if err != nil {
			plainly(t, err, "token server")
		}
	}
}

// What a token server answers is not trusted, and not shown: it may be a secret.
func TestTokenServerAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		text   string
	}{
		"no JSON":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hush") }, "JSON"},
		"no token": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"refresh_token":"hush"}`) }, "no token"},
		"huge": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"token":"`+strings.Repeat("hush", maxToken)+`"}`)
		}, "at most"},
		"a line": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":"hush\nx: y"}`) }, "invalid header"},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://localhost:1/hush", http.StatusPermanentRedirect)
		}, "expected its own address"},
	} {
		for _, login := range []*wire.AuthConfig{{Username: "ann", Password: "secret"}, {IdentityToken: "secret"}} {
			t.Run(name, func(t *testing.T) {
				server := httptest.NewServer(http.HandlerFunc(test.answer))
				t.Cleanup(server.Close)
				host := serve(t, func(http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
						w.Header().Set("WWW-Authenticate", `Bearer realm="`+server.URL+`"`)
						w.WriteHeader(http.StatusUnauthorized)
					})
				})
				_, err := New(Options{}).Resolve(t.Context(), host+"/app", ocispec.Platform{}, login)
				plainly(t, err, test.text)
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Error(err)
				}
			})
		}
	}
}

func TestBearerScope(t *testing.T) {
	for given, want := range map[string]string{
		`Bearer realm="https://x/token",service="y",scope="repository:a:pull,push",error="z"`: "repository:a:pull,push",
		`bearer scope=a:b:c, realm="x"`:          "a:b:c",
		`Negotiate, Bearer realm="x", Scope="s"`: "s",
		`Bearer realm="x"`:                       "",
		`Bearer `:                                "",
		`Bearer scope="`:                         "",
		`Bearer scope`:                           "",
		`Bearer ====`:                            "",
		`Basic realm="scope=x"`:                  "none",
		``:                                       "none",
	} {
		got, ok := bearerScope([]string{"Digest", given})
		if !ok {
			got = "none"
		}
		if got != want {
			t.Errorf("%s: %q: expected %q", given, got, want)
		}
	}
}
