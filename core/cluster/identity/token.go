package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"math/big"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

const (
	tokenPrefix  = "SWMTKN-1-"
	digestLength = 50 // digits of base 36 for 256 bits
	maxToken     = len(tokenPrefix) + digestLength + 1 + idLength
)

// NewToken makes a token to join the authority's swarm, with a new secret: "SWMTKN-1-DIGEST-SECRET", 50 and 25 digits of
// base 36. Which role it gives is what the swarm notes of it.
func NewToken(a Authority) (string, error) {
	digest, err := a.Digest()
	if err != nil {
		return "", err
	}
	return tokenPrefix + digest + "-" + randomDigits(), nil
}

// ParseToken takes a token apart. Spaces around it are not part of it: tokens come from files and shells.
func ParseToken(s string) (digest, secret string, err error) {
	s = strings.TrimSpace(s)
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok || len(s) != maxToken {
		return "", "", invalidToken()
	}
	digest, secret, _ = strings.Cut(rest, "-")
	if !validDigest(digest) || !base36(secret, idLength) {
		return "", "", invalidToken()
	}
	return digest, secret, nil
}

func invalidToken() error { return fault.New(fault.Invalid, "invalid join token") }

// validDigest says whether s can be the digest of a root: 50 digits can hold somewhat more than 256 bits.
func validDigest(s string) bool {
	if !base36(s, digestLength) {
		return false
	}
	n, ok := new(big.Int).SetString(s, len(digits))
	return ok && n.BitLen() <= 256
}

// digestOf is the SHA-256 of a certificate's PEM, as tokens write it.
func digestOf(pem []byte) string {
	sum := sha256.Sum256(pem)
	return pad(new(big.Int).SetBytes(sum[:]), digestLength)
}

// SameSecret compares tokens or secrets in a time that does not tell where they differ. None is the same as no secret.
func SameSecret(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}
