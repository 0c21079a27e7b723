package wire

// AuthResponse answers POST /auth.
type AuthResponse struct {
	Status        string `json:"Status"`
	IdentityToken string `json:"IdentityToken"`
}

// SearchResult is one row of GET /images/search.
type SearchResult struct {
	StarCount   int    `json:"star_count"`
	IsOfficial  bool   `json:"is_official"`
	Name        string `json:"name"`
	IsAutomated bool   `json:"is_automated"`
	Description string `json:"description"`
}

// Descriptor names a blob of a registry (image-spec, "OCI Content Descriptors").
type Descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`

	Platform *Platform `json:"platform,omitempty"`
}

// Platform is what an image is for.
type Platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

// DistributionInspect answers GET /distribution/{name}/json.
type DistributionInspect struct {
	Descriptor Descriptor `json:"Descriptor"`
	Platforms  []Platform `json:"Platforms"`
}
