// Package trust is what a signature of an image says, who made it, and whether that is enough.
//
// The format is cosign's with keys of one's own (sigstore/cosign, specs/SIGNATURE_SPEC.md): a claim,
// which names a reference and a digest, is signed with ECDSA on P-256 and SHA-256, and claim and
// signature are stored beside the image in its registry. What podman and skopeo sign is accepted here,
// and the reverse.
//
//	claim.go      the claim: what is signed
//	reference.go  which names a claim covers
//	key.go        key pairs, and private keys under a passphrase
//	policy.go     whose signatures an image needs
//	gate.go       the policy in force
//
// The package speaks to nobody: core/registry fetches and stores signatures, core/image asks the gate
// before it keeps or uses an image, and the client, which alone has private keys, signs.
package trust

// Bounds of what comes from registries. Real claims have a few hundred bytes, real images a few signatures.
const (
	MaxClaim      = 16 << 10
	MaxSignature  = 1 << 10
	MaxSignatures = 64                // of a digest
	MaxKept       = 2 * MaxSignatures // of an image, which has an index and a manifest
	maxKeyFile    = 64 << 10
)
