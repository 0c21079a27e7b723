package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"io"
	"os"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/sampan-project/sampan/core/fault"
)

// Types of PEM blocks. New cosigns write the second, and read both; skopeo and podman before 2023 know
// the first alone, and so it is written here.
const (
	typeCosign   = "ENCRYPTED COSIGN PRIVATE KEY"
	typeSigstore = "ENCRYPTED SIGSTORE PRIVATE KEY"
	typePublic   = "PUBLIC KEY"
)

// PublicKey verifies signatures. Name is whose it is, for messages.
type PublicKey struct {
	Name string
	ID   string // SHA-256 of the key in DER, in hexadecimal

	key *ecdsa.PublicKey
	der []byte
}

// Verify reports whether the key signed the data.
func (k *PublicKey) Verify(data, signature []byte) bool {
	sum := sha256.Sum256(data)
	return k.verifySum(sum, signature)
}

func (k *PublicKey) verifySum(sum [sha256.Size]byte, signature []byte) bool {
	return len(signature) <= MaxSignature && ecdsa.VerifyASN1(k.key, sum[:], signature)
}

// PEM is the key as cosign.pub has it.
func (k *PublicKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typePublic, Bytes: k.der})
}

// ParsePublicKey reads a public key: one PEM block of PKIX, ECDSA on P-256.
func ParsePublicKey(data []byte) (*PublicKey, error) {
	if len(data) > maxKeyFile {
		return nil, fault.New(fault.Invalid, "public key: expected at most %d bytes", maxKeyFile)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, fault.New(fault.Invalid, "public key: expected PEM that begins with -----BEGIN PUBLIC KEY-----")
	case block.Type != typePublic:
		return nil, fault.New(fault.Invalid, "public key: PEM of type %s: expected %s", quote(block.Type), typePublic)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, fault.New(fault.Invalid, "public key: expected one key in the file")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fault.New(fault.Invalid, "public key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return nil, fault.New(fault.Invalid, "public key: type %T: expected ECDSA on P-256", parsed)
	}
	return publicKey(key)
}

func publicKey(key *ecdsa.PublicKey) (*PublicKey, error) {
	if key.Curve != elliptic.P256() {
		return nil, fault.New(fault.Invalid, "key: curve %s: expected ECDSA on P-256", key.Curve.Params().Name)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fault.New(fault.Invalid, "key: %w", err)
	}
	sum := sha256.Sum256(der)
	return &PublicKey{ID: hex.EncodeToString(sum[:]), key: key, der: der}, nil
}

// ReadPublicKey reads the file of a public key.
func ReadPublicKey(path string) (*PublicKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	key, err := ParsePublicKey(data)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", path, err)
	}
	return key, nil
}

// PrivateKey signs. It exists in the client alone.
type PrivateKey struct {
	key    *ecdsa.PrivateKey
	public *PublicKey
}

// GenerateKey makes a key pair.
func GenerateKey() (*PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return privateKey(key)
}

func privateKey(key *ecdsa.PrivateKey) (*PrivateKey, error) {
	public, err := publicKey(&key.PublicKey)
	return &PrivateKey{key, public}, err
}

// Public returns the other half.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// Sign signs data: ECDSA over its SHA-256, in ASN.1.
func (k *PrivateKey) Sign(data []byte) ([]byte, error) {
	sum := sha256.Sum256(data)
	return ecdsa.SignASN1(rand.Reader, k.key, sum[:])
}

// Seal returns the private key under a passphrase, in cosign's format: PKCS #8 in a secretbox whose key
// scrypt makes, with the cost that every reader of the format accepts.
func (k *PrivateKey) Seal(passphrase []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.key)
	if err != nil {
		return nil, err
	}
	sealed, err := encrypted.EncryptWithCustomKDFParameters(der, passphrase, encrypted.Legacy)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: typeCosign, Bytes: sealed}), nil
}

// IsSealed reports whether a private key's file needs a passphrase.
func IsSealed(data []byte) bool {
	block, _ := pem.Decode(data)
	return block != nil && (block.Type == typeCosign || block.Type == typeSigstore)
}

// ParsePrivateKey reads a private key: sealed as cosign's, or bare in PKCS #8 or SEC 1. The passphrase
// is that of a sealed one.
func ParsePrivateKey(data, passphrase []byte) (*PrivateKey, error) {
	if len(data) > maxKeyFile {
		return nil, fault.New(fault.Invalid, "private key: expected at most %d bytes", maxKeyFile)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fault.New(fault.Invalid, "private key: expected PEM")
	}
	var parsed any
	var err error
	switch block.Type {
	case typeCosign, typeSigstore:
		der, oerr := encrypted.Decrypt(block.Bytes, passphrase)
		if oerr != nil {
			return nil, fault.New(fault.Unauthorized, "private key: wrong passphrase, or a damaged file")
		}
		parsed, err = x509.ParsePKCS8PrivateKey(der)
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fault.New(fault.Invalid, "private key: PEM of type %s: expected PRIVATE KEY, EC PRIVATE KEY or %s", quote(block.Type), typeCosign)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "private key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fault.New(fault.Invalid, "private key: type %T: expected ECDSA on P-256", parsed)
	}
	return privateKey(key)
}
