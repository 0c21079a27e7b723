package scenario

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// tokenServer gives out tokens for a registry to alice, whose password is secret, and identity tokens to
// who asks for one (distribution, docs/content/spec/auth: token.md, oauth.md, jwt.md).
type tokenServer struct {
	key      *ecdsa.PrivateKey
	cert     []byte
	log      string // a line for each request
	mu       sync.Mutex
	identity map[string]bool
}

const tokenIssuer, tokenService = "the issuer", "the service"

// tokenRegistry starts Debian's docker-registry behind a token server: `tokenregistry`; `tokenregistry revoke` takes all
// identity tokens back. It sets $REGISTRY, and writes what is asked for to token.log.
func tokenRegistry(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	switch {
	case neg || len(args) > 1 || len(args) == 1 && (args[0] != "revoke" || s.tokens == nil):
		ts.Fatalf("usage: tokenregistry, then tokenregistry revoke")
	case len(args) == 1:
		s.tokens.mu.Lock()
		defer s.tokens.mu.Unlock()
		clear(s.tokens.identity)
		return
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	bundle := filepath.Join(s.root, "token.pem")
	ts.Check(os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	s.tokens = &tokenServer{key: key, cert: cert, log: ts.MkAbs("token.log"), identity: map[string]bool{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: s.tokens}
	go server.Serve(l) //nolint:errcheck // it is closed
	s.ends = append(s.ends, server.Close)
	startRegistry(ts, fmt.Sprintf("auth: {token: {realm: %q, service: %q, issuer: %q, rootcertbundle: %q}}\n",
		"http://"+l.Addr().String()+"/token", tokenService, tokenIssuer, bundle))
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ParseForm() != nil || r.URL.Path != "/token" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	user, password, _ := r.BasicAuth()
	how, ok := "password", user == "alice" && password == "secret"
	if r.Method == http.MethodPost {
		how, ok = r.PostForm.Get("grant_type"), s.identity[r.PostForm.Get("refresh_token")]
	}
	answer := map[string]any{"expires_in": 300}
	if ok && r.Form.Get("offline_token") == "true" {
		refresh := rand.Text()
		s.identity[refresh] = true
		answer["refresh_token"] = refresh
		how += " offline"
	}
	f, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintf(f, "%s %s %t\n", r.Method, how, ok)
		err = f.Close()
	}
	if !ok || err != nil || r.Form.Get("service") != tokenService {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"that is not good any more"}]}`)
		return
	}
	token, err := s.sign(strings.Fields(strings.Join(r.Form["scope"], " ")))
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	answer["token"], answer["access_token"] = token, token
	json.NewEncoder(w).Encode(answer) //nolint:errcheck // the client sees it
}

// sign makes a token for what was asked (RFC 7515, RFC 7518 section 3.4).
func (s *tokenServer) sign(scopes []string) (string, error) {
	access := []map[string]any{}
	for _, scope := range scopes {
		kind, rest, _ := strings.Cut(scope, ":")
		at := strings.LastIndex(rest, ":")
		if at < 0 {
			continue
		}
		access = append(access, map[string]any{"type": kind, "name": rest[:at], "actions": strings.Split(rest[at+1:], ",")})
	}
	now := time.Now().Unix()
	head, err := json.Marshal(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.cert)}})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"iss": tokenIssuer, "aud": tokenService, "sub": "alice", "jti": rand.Text(),
		"iat": now, "nbf": now - 60, "exp": now + 300, "access": access,
	})
	if err != nil {
		return "", err
	}
	signed := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(signed))
	a, b, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
