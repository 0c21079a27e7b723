package wire

// Signature is one signature of an image in cosign's format: what was signed, and the signature.
type Signature struct {
	Payload   []byte `json:"payload"`
	Signature []byte `json:"signature"`
}

// SignedTag is a tag of a repository, or a digest without one, and the signatures of what it stands for.
type SignedTag struct {
	Tag       string   `json:"tag,omitempty"`
	Digest    string   `json:"digest"`
	Manifests []string `json:"manifests,omitempty"` // of an index, those that it lists
	// Signatures are of the digest and of the manifests.
	Signatures []Signature `json:"signatures"`
}

// TrustData is what a registry has of the signatures of a repository.
type TrustData struct {
	Repository string      `json:"repository"` // in full, "docker.io/library/app"
	Tags       []SignedTag `json:"tags"`
}

// SignRequest stores a signature beside an image.
type SignRequest struct {
	Digest    string    `json:"digest"`
	Signature Signature `json:"signature"`
}

// RevokeReport is how many signatures were removed.
type RevokeReport struct {
	Removed int `json:"removed"`
}
