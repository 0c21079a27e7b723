package wire

// ManifestCreate is the body of POST /sampan/v1/manifests: a list and the images that it is to have.
type ManifestCreate struct {
	Name      string   `json:"Name"`
	Manifests []string `json:"Manifests"`
	Amend     bool     `json:"Amend,omitempty"` // the list may be there already
	Insecure  bool     `json:"Insecure,omitempty"`
}

// ManifestAnnotate is the body of POST /sampan/v1/manifests/annotate. What the platform leaves empty stays.
type ManifestAnnotate struct {
	Name     string   `json:"Name"`
	Manifest string   `json:"Manifest"`
	Platform Platform `json:"Platform"`
}

// ManifestInspect asks GET /sampan/v1/manifests for a list, an image in a list, or one in a registry.
type ManifestInspect struct {
	List     string // "": none
	Manifest string
	Verbose  bool
	Insecure bool
}

// ManifestPush is the body of POST /sampan/v1/manifests/push.
type ManifestPush struct {
	Name     string `json:"Name"`
	Purge    bool   `json:"Purge,omitempty"` // forget the list afterwards
	Insecure bool   `json:"Insecure,omitempty"`
}

// ManifestResult answers what makes or pushes a list.
type ManifestResult struct {
	Name   string `json:"Name,omitempty"`
	Digest string `json:"Digest,omitempty"`
}

// ImageNode is a layer in GET /sampan/v1/images/tree, and the layers that stand on it.
type ImageNode struct {
	Chain    string      `json:"Chain"` // of the layer and all below it
	DiffID   string      `json:"DiffID"`
	Size     int64       `json:"Size"`   // of this layer alone
	Images   []string    `json:"Images"` // whose top layer it is: their names, or their IDs
	Users    int         `json:"Users"`  // images that have it
	Children []ImageNode `json:"Children,omitempty"`
}

// ImageMount is an image whose files are shown on the host.
type ImageMount struct {
	Image string `json:"Image"` // as it was named
	ID    string `json:"ID,omitempty"`
	Path  string `json:"Path"`
}
