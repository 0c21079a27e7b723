package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

var (
	digestA = "sha256:" + strings.Repeat("a", 64)
	digestB = "sha256:" + strings.Repeat("b", 64)
)

func newKey(t *testing.T) *PrivateKey {
	t.Helper()
	k, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign signs any payload.
func sign(t *testing.T, k *PrivateKey, payload []byte) wire.Signature {
	t.Helper()
	s, err := k.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	return wire.Signature{Payload: payload, Signature: s}
}

func claim(t *testing.T, k *PrivateKey, ref, digest string) wire.Signature {
	t.Helper()
	payload, err := Claim{Reference: ref, Digest: digest, Time: time.Unix(1000, 0)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, k, payload)
}

func TestClaim(t *testing.T) {
	want := Claim{Reference: "registry.example.com/app:1.0", Digest: digestA, Creator: "test", Time: time.Unix(1700000000, 0).UTC()}
	raw, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseClaim(raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// As cosign writes it.
	got, err = ParseClaim([]byte(`{"critical":{"identity":{"docker-reference":"index.docker.io/library/app"},"image":{"docker-manifest-digest":"` + digestA + `"},"type":"cosign container image signature"},"optional":null}`))
	if err != nil || got.Digest != digestA || !got.Time.IsZero() {
		t.Errorf("cosign's claim: %+v, %v", got, err)
	}
}

func TestClaimRefused(t *testing.T) {
	const good = `{"critical":{"identity":{"docker-reference":"x/app:1"},"image":{"docker-manifest-digest":"DIGEST"},"type":"cosign container image signature"},"optional":{}}`
	if _, err := ParseClaim([]byte(strings.ReplaceAll(good, "DIGEST", digestA))); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][2]string{
		"no JSON":           {good, `x`},
		"array":             {good, `[]`},
		"trailing":          {`"optional":{}}`, `"optional":{}}{}`},
		"unknown critical":  {`"type"`, `"must":1,"type"`},
		"unknown top":       {`"optional"`, `"more":1,"optional"`},
		"case of a key":     {`"critical"`, `"Critical"`},
		"no optional":       {`,"optional":{}`, ``},
		"key twice":         {`"identity":{`, `"identity":{"docker-reference":"x/evil:1"},"identity":{`},
		"inner key twice":   {`{"docker-manifest-digest"`, `{"docker-manifest-digest":"` + digestB + `","docker-manifest-digest"`},
		"other type":        {"cosign container image signature", "atomic container signature"},
		"type is no text":   {`"cosign container image signature"`, `1`},
		"reference is null": {`"x/app:1"`, `null`},
		"short digest":      {"DIGEST", "sha256:aa"},
		"other algorithm":   {"DIGEST", "sha512:" + strings.Repeat("a", 128)},
		"upper digest":      {"DIGEST", strings.ToUpper(digestA)},
		"timestamp":         {`"optional":{}`, `"optional":{"timestamp":"now"}`},
		"negative time":     {`"optional":{}`, `"optional":{"timestamp":-1}`},
		"huge time":         {`"optional":{}`, `"optional":{"timestamp":1e300}`},
		"creator":           {`"optional":{}`, `"optional":{"creator":[]}`},
		"too long":          {`"optional":{}`, `"optional":{"x":"` + strings.Repeat("x", MaxClaim) + `"}`},
	} {
		raw := strings.ReplaceAll(strings.Replace(good, c[0], c[1], 1), "DIGEST", digestA)
		if _, err := ParseClaim([]byte(raw)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v: expected a refusal", name, err)
		} else if strings.ContainsRune(err.Error(), '\n') {
			t.Errorf("%s: %q: expected one line", name, err)
		}
	}
}

// TestReference compares with the library that the rest of the engine parses names with.
func TestReference(t *testing.T) {
	for _, s := range []string{
		"app", "app:1", "someone/app", "someone/app:1", "docker.io/app", "docker.io/library/app:1", "index.docker.io/app", "localhost/app:1",
		"localhost:5000/app", "127.0.0.1:5000/a/b/c:1", "registry.example.com/app@" + digestA, "app:1@" + digestA, "[::1]:5000/app:1",
	} {
		named, err := reference.ParseNormalizedNamed(s)
		if err != nil {
			t.Fatal(err)
		}
		want := Reference{Repository: named.Name()}
		if v, ok := named.(reference.Tagged); ok {
			want.Tag = v.Tag()
		}
		if v, ok := named.(reference.Digested); ok {
			want.Digest = v.Digest().String()
		}
		got, err := ParseReference(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-library +ours):\n%s", s, diff)
		}
	}
	if r, err := ParseReference("Registry.Example.COM/app:1"); err != nil || r.Repository != "registry.example.com/app" {
		t.Errorf("a host in capitals: %v, %v", r, err)
	}
	for _, s := range []string{"", ":", "app:", "/app", "app/", "a//b", "a b", "app@sha256:12", "a\nb", "a\x00", strings.Repeat("a", 1000)} {
		if r, err := ParseReference(s); err == nil {
			t.Errorf("%q is %v: expected a refusal", s, r)
		}
	}
}

func TestKey(t *testing.T) {
	k := newKey(t)
	sealed, err := k.Seal([]byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	if !IsSealed(sealed) || strings.Contains(string(sealed), "open sesame") {
		t.Errorf("not sealed: %s", sealed)
	}
	for _, data := range [][]byte{sealed, []byte(strings.ReplaceAll(string(sealed), "COSIGN", "SIGSTORE"))} {
		again, err := ParsePrivateKey(data, []byte("open sesame"))
		if err != nil {
			t.Fatal(err)
		}
		if again.Public().ID != k.Public().ID {
			t.Error("another key came out")
		}
	}
	if _, err := ParsePrivateKey(sealed, []byte("wrong")); !fault.Is(err, fault.Unauthorized) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	public, err := ParsePublicKey(k.Public().PEM())
	if err != nil {
		t.Fatal(err)
	}
	s := claim(t, k, "x.y/app:1", digestA)
	if !public.Verify(s.Payload, s.Signature) || public.Verify(append(s.Payload, ' '), s.Signature) || newKey(t).Public().Verify(s.Payload, s.Signature) {
		t.Error("verification is wrong")
	}
}

func block(t *testing.T, kind string, der []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestKeyRefused(t *testing.T) {
	wide, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&wide.PublicKey)
	widePublic := block(t, typePublic, der, err)
	der, err = x509.MarshalPKIXPublicKey(&other.PublicKey)
	otherPublic := block(t, typePublic, der, err)
	der, err = x509.MarshalPKCS8PrivateKey(wide)
	widePrivate := block(t, "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKCS8PrivateKey(other)
	otherPrivate := block(t, "PRIVATE KEY", der, err)
	two := newKey(t).Public().PEM()
	two = append(two, two...)
	for name, data := range map[string][]byte{
		"P-384": widePublic, "RSA": otherPublic, "two keys": two, "private": widePrivate, "nothing": nil, "no DER": block(t, typePublic, []byte("x"), nil),
		"large": make([]byte, maxKeyFile+1),
	} {
		if k, err := ParsePublicKey(data); !fault.Is(err, fault.Invalid) {
			t.Errorf("public %s: %v, %v: expected a refusal", name, k, err)
		}
	}
	for name, data := range map[string][]byte{
		"P-384": widePrivate, "RSA": otherPrivate, "public": widePublic, "nothing": nil, "large": make([]byte, maxKeyFile+1),
		// The cost of a hostile file's scrypt is its writer's choice, unless it is refused.
		"scrypt": block(t, typeCosign, []byte(`{"kdf":{"name":"scrypt","params":{"N":1073741824,"r":8,"p":1},"salt":"AAAA"},"cipher":{"name":"nacl/secretbox","nonce":"AAAA"},"ciphertext":"AAAA"}`), nil),
	} {
		if k, err := ParsePrivateKey(data, nil); err == nil {
			t.Errorf("private %s: %v: expected a refusal", name, k)
		}
	}
}

func ruleOf(require int, match string, keys ...*PrivateKey) Rule {
	r := Rule{Scope: "test", Action: Signed, Require: require, Match: match}
	for i, k := range keys {
		p := *k.Public()
		p.Name = fmt.Sprint("key", i)
		r.Keys = append(r.Keys, &p)
	}
	return r
}

func TestVerify(t *testing.T) {
	alice, bob, mallory := newKey(t), newKey(t), newKey(t)
	asked := Reference{Repository: "x.y/app", Tag: "1"}
	byDigest := Reference{Repository: "x.y/app", Digest: digestA}
	good := claim(t, alice, "x.y/app:1", digestA)
	one, both := ruleOf(1, MatchExact, alice, bob), ruleOf(2, MatchExact, alice, bob)
	var many []wire.Signature
	for range MaxKept + 1 {
		many = append(many, good)
	}
	tests := []struct {
		name       string
		rule       Rule
		asked      Reference
		signatures []wire.Signature
		refusal    string // "" for none
	}{
		{"good", one, asked, []wire.Signature{good}, ""},
		{"behind others", one, asked, []wire.Signature{claim(t, mallory, "x.y/app:1", digestA), {}, good}, ""},
		{"none", one, asked, nil, "it has none"},
		{"stranger", one, asked, []wire.Signature{claim(t, mallory, "x.y/app:1", digestA)}, "none of its 1 is by them"},
		{"other tag", one, asked, []wire.Signature{claim(t, alice, "x.y/app:2", digestA)}, `key0 signed another name, "x.y/app:2"`},
		{"other repository", one, asked, []wire.Signature{claim(t, alice, "x.y/evil:1", digestA)}, "signed another name"},
		{"other registry", one, asked, []wire.Signature{claim(t, alice, "z.y/app:1", digestA)}, "signed another name"},
		{"other digest", one, asked, []wire.Signature{claim(t, alice, "x.y/app:1", digestB)}, "signed another digest"},
		{"no tag, exact", one, asked, []wire.Signature{claim(t, alice, "x.y/app", digestA)}, "signed another name"},
		{"no tag, repository", ruleOf(1, MatchRepository, alice), asked, []wire.Signature{claim(t, alice, "x.y/app", digestA)}, ""},
		{"other repository, repository", ruleOf(1, MatchRepository, alice), asked, []wire.Signature{claim(t, alice, "x.y/evil", digestA)}, "signed another name"},
		{"by digest", one, byDigest, []wire.Signature{good}, ""},
		{"by digest, other repository", one, byDigest, []wire.Signature{claim(t, alice, "x.y/evil:1", digestA)}, "signed another name"},
		{"payload changed", one, asked, []wire.Signature{{Payload: append([]byte(" "), good.Payload...), Signature: good.Signature}}, "none of its 1 is by them"},
		{"signature cut", one, asked, []wire.Signature{{Payload: good.Payload, Signature: good.Signature[:10]}}, "none of its 1 is by them"},
		{"signed nonsense", one, asked, []wire.Signature{sign(t, alice, []byte("{}"))}, "signed claim: has no critical"},
		{"two of two", both, asked, []wire.Signature{good, claim(t, bob, "x.y/app:1", digestA)}, ""},
		{"one twice is not two", both, asked, []wire.Signature{good, claim(t, alice, "x.y/app:1", digestA)}, "it has 1 of them"},
		{"too many", one, asked, many, "expected at most 128"},
		{"rejected", Rule{Scope: "default", Action: Reject}, asked, []wire.Signature{good}, "default rejects it"},
		{"accepted", Rule{Action: Accept}, asked, nil, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v, err := test.rule.Verify(test.asked, []string{digestA}, test.signatures)
			switch {
			case test.refusal == "" && err != nil:
				t.Error(err)
			case test.refusal != "" && (!fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), test.refusal)):
				t.Errorf("%v: expected %q", err, test.refusal)
			case test.refusal == "" && test.rule.Action == Signed && !v.Time.Equal(time.Unix(1000, 0)):
				t.Errorf("time %v", v.Time)
			}
		})
	}
}

func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.pub")
	if err := os.WriteFile(path, newKey(t).Public().PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	signed, accept := RuleConfig{Keys: []string{path}}, RuleConfig{Action: Accept}
	p, err := Config{Default: Reject, Repositories: map[string]RuleConfig{
		"app": signed, "docker.io/someone/": accept, "x.y:5000": accept, "x.y:5000/team": signed, "X.y:5000/team/free": accept,
		"hub:5000/": accept,
	}}.Load()
	if err != nil {
		t.Fatal(err)
	}
	for repository, want := range map[string]string{
		"docker.io/library/app": Signed, "docker.io/library/other": Reject, "docker.io/someone/x": Accept, "hub:5000/x": Accept,
		"x.y:5000/any": Accept, "x.y:5000/team/app": Signed, "x.y:5000/teams/app": Accept, "x.y:5000/team/free": Accept, "X.Y:5000/team/app": Signed,
		"x.y/team/app": Reject, "": Reject,
	} {
		if got := p.For(repository).Action; got != want {
			t.Errorf("%s: %s: expected %s", repository, got, want)
		}
	}
	var none *Gate
	if none.For("x").Action != Accept || new(Gate).For("x").Action != Accept {
		t.Error("a gate without a policy does not let in")
	}
	for name, c := range map[string]Config{
		"default":   {Default: "maybe"},
		"no keys":   {Repositories: map[string]RuleConfig{"app": {}}},
		"relative":  {Repositories: map[string]RuleConfig{"app": {Keys: []string{"a.pub"}}}},
		"missing":   {Repositories: map[string]RuleConfig{"app": {Keys: []string{dir + "/b.pub"}}}},
		"twice":     {Repositories: map[string]RuleConfig{"app": {Keys: []string{path, path}}}},
		"require":   {Repositories: map[string]RuleConfig{"app": {Keys: []string{path}, Require: 2}}},
		"negative":  {Repositories: map[string]RuleConfig{"app": {Keys: []string{path}, Require: -1}}},
		"match":     {Repositories: map[string]RuleConfig{"app": {Keys: []string{path}, Match: "some"}}},
		"action":    {Repositories: map[string]RuleConfig{"app": {Action: "sign"}}},
		"accept":    {Repositories: map[string]RuleConfig{"app": {Action: Accept, Keys: []string{path}}}},
		"tag":       {Repositories: map[string]RuleConfig{"app:1": accept}},
		"digest":    {Repositories: map[string]RuleConfig{"app@" + digestA: accept}},
		"two names": {Repositories: map[string]RuleConfig{"app": accept, "docker.io/library/app": accept}},
		"empty":     {Repositories: map[string]RuleConfig{"": accept}},
	} {
		if _, err := c.Load(); err == nil {
			t.Errorf("%s: expected a refusal", name)
		}
	}
}

func FuzzParseClaim(f *testing.F) {
	raw, err := Claim{Reference: "x.y/app:1", Digest: digestA, Creator: "f", Time: time.Unix(1, 0)}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"critical":{},"optional":null}`))
	f.Add([]byte(`{"critical":{"identity":{},"image":{},"type":""},"optional":{"timestamp":1e9}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseClaim(raw)
		if err != nil {
			return
		}
		if checkDigest(c.Digest) != nil {
			t.Fatalf("digest %q", c.Digest)
		}
		if _, err := ParseReference(c.Reference); err != nil {
			return // it covers nothing
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseClaim(again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}
