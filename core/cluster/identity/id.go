package identity

import (
	"crypto/rand"
	"math/big"
)

const (
	idLength = 25
	digits   = "0123456789abcdefghijklmnopqrstuvwxyz"
)

// NewID makes the name of a swarm, node, service or task: 25 digits of base 36, at random, as in Docker's swarm mode.
func NewID() string { return randomDigits() }

// randomDigits are 25 digits of base 36: just over 129 bits.
func randomDigits() string {
	limit := new(big.Int).Exp(big.NewInt(int64(len(digits))), big.NewInt(idLength), nil)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		panic(err) // crypto/rand.Reader never fails (its documentation, since Go 1.24)
	}
	return pad(n, idLength)
}

// pad writes a number with as many digits of base 36 as are asked for.
func pad(n *big.Int, length int) string {
	text := []byte(n.Text(len(digits)))
	out := make([]byte, length)
	for i := range out {
		out[i] = '0'
	}
	copy(out[length-len(text):], text)
	return string(out)
}

// base36 says whether s has just so many digits of base 36, in small letters.
func base36(s string, length int) bool {
	if len(s) != length {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
