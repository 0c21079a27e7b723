package identity

import (
	"crypto/sha256"
	"math/big"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/fault"
)

func TestTokensAreOfTheirAuthority(t *testing.T) {
	a := newAuthority(t)
	one, err := NewToken(a)
	if err != nil {
		t.Fatal(err)
	}
	two, err := NewToken(a)
	if err != nil {
		t.Fatal(err)
	}
	digest, secret, err := ParseToken(one)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := a.Digest(); err != nil || digest != want {
		t.Errorf("digest %s, %v, want %s", digest, err, want)
	}
	other, otherSecret, err := ParseToken(two)
	if err != nil || other != digest || otherSecret == secret {
		t.Errorf("two tokens of one authority: %s and %s", one, two)
	}
	// The digest is that of the PEM's bytes, whatever stands around them.
	b := Authority{Cert: append([]byte("\n\n"), a.Cert...)}
	if got, err := b.Digest(); err != nil || got != digest {
		t.Errorf("with lines around: %s, %v", got, err)
	}
	sum := sha256.Sum256(a.Cert)
	if n, ok := new(big.Int).SetString(digest, 36); !ok || n.Cmp(new(big.Int).SetBytes(sum[:])) != 0 {
		t.Errorf("%s is not SHA-256 of the root in base 36", digest)
	}
}

// A token from Docker's documentation of `docker swarm join`.
const documented = "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdbx"

func TestParseToken(t *testing.T) {
	const digest, secret = "3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl", "1awxwuwd3z9j1z3puu7rcgdbx"
	for name, token := range map[string]string{"as it is": documented, "of a file": documented + "\n"} {
		t.Run(name, func(t *testing.T) {
			if d, s, err := ParseToken(token); d != digest || s != secret || err != nil {
				t.Errorf("got %s, %s, %v", d, s, err)
			}
		})
	}
	for name, token := range map[string]string{
		"nothing":           "",
		"a word":            "token",
		"another version":   strings.Replace(documented, "-1-", "-2-", 1),
		"one secret less":   documented[:len(documented)-1],
		"one more":          documented + "x",
		"shorter digest":    "SWMTKN-1-" + digest[1:] + "-" + secret + "x",
		"capitals":          strings.Replace(documented, "hsz", "HSZ", 1),
		"a sign":            "SWMTKN-1-" + "-" + digest[1:] + "-" + secret,
		"no dash":           "SWMTKN-1-" + digest + "0" + secret,
		"more than 256 bit": "SWMTKN-1-" + strings.Repeat("z", 50) + "-" + secret,
		"zero byte":         "SWMTKN-1-" + digest + "-" + secret[1:] + "\x00",
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := ParseToken(token); !fault.Is(err, fault.Invalid) || err.Error() != "invalid join token" {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSameSecret(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"a", "a", true}, {"a", "b", false}, {"a", "aa", false}, {"", "", false}, {"", "a", false}, {"a", "", false}} {
		if got := SameSecret(c.a, c.b); got != c.want {
			t.Errorf("SameSecret(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(documented)
	f.Add("SWMTKN-1--")
	f.Add("SWMTKN-1-" + strings.Repeat("0", 50) + "-" + strings.Repeat("0", 25))
	f.Fuzz(func(t *testing.T, token string) {
		digest, secret, err := ParseToken(token)
		switch {
		case err != nil && (digest != "" || secret != "" || !fault.Is(err, fault.Invalid)):
			t.Errorf("refused with %q, %q, %v", digest, secret, err)
		case err == nil && "SWMTKN-1-"+digest+"-"+secret != strings.TrimSpace(token):
			t.Errorf("%q is not %q and %q", token, digest, secret)
		case err == nil && (!validDigest(digest) || !base36(secret, idLength)):
			t.Errorf("%q and %q", digest, secret)
		}
	})
}

func FuzzIdentityFile(f *testing.F) {
	a, err := NewAuthority()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(append([]byte{}, a.Cert...), a.Key...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if i, err := parseFile(data); (i == nil) == (err == nil) {
			t.Errorf("%v, %v", i, err)
		}
	})
}

func FuzzRequest(f *testing.F) {
	_, csr, err := NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseRequest(data); (r == nil) == (err == nil) || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%v, %v", r, err)
		}
	})
}
