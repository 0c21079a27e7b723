package wire

// ImageSummary is one row of GET /images/json.
type ImageSummary struct {
	ID          string            `json:"Id"`
	ParentID    string            `json:"ParentId"`
	RepoTags    []string          `json:"RepoTags"`
	RepoDigests []string          `json:"RepoDigests"`
	Created     int64             `json:"Created"` // seconds since 1970
	Size        int64             `json:"Size"`    // unpacked bytes
	SharedSize  int64             `json:"SharedSize"`
	Labels      map[string]string `json:"Labels"`
	Containers  int64             `json:"Containers"`           // -1 when not counted
	Descriptor  *Descriptor       `json:"Descriptor,omitempty"` // of its manifest, when manifests were asked for
	Manifests   []ImageManifest   `json:"Manifests,omitempty"`
}

// ImageInspect answers GET /images/{name}/json.
type ImageInspect struct {
	ID            string           `json:"Id"`
	RepoTags      []string         `json:"RepoTags"`
	RepoDigests   []string         `json:"RepoDigests"`
	Parent        string           `json:"Parent"`
	Comment       string           `json:"Comment"`
	Created       string           `json:"Created"`
	DockerVersion string           `json:"DockerVersion"`
	Author        string           `json:"Author"`
	Config        *ContainerConfig `json:"Config"`
	Architecture  string           `json:"Architecture"`
	Variant       string           `json:"Variant,omitempty"`
	Os            string           `json:"Os"`
	OsVersion     string           `json:"OsVersion,omitempty"`
	Size          int64            `json:"Size"`
	VirtualSize   int64            `json:"VirtualSize,omitempty"`
	GraphDriver   GraphDriver      `json:"GraphDriver"`
	RootFS        RootFS           `json:"RootFS"`
	Metadata      ImageMetadata    `json:"Metadata"`
	Descriptor    *Descriptor      `json:"Descriptor,omitempty"` // of its manifest, when manifests were asked for
	Manifests     []ImageManifest  `json:"Manifests,omitempty"`
}

// ImageManifest is one platform that an image's name stands for (API v1.47, "ImageManifestSummary").
type ImageManifest struct {
	ID         string     `json:"ID"`
	Descriptor Descriptor `json:"Descriptor"`
	Available  bool       `json:"Available"`
	Size       struct {
		Total   int64 `json:"Total"`
		Content int64 `json:"Content"` // packed, as registries have it
	} `json:"Size"`
	Kind      string           `json:"Kind"` // image or unknown
	ImageData *ImageProperties `json:"ImageData,omitempty"`
}

// ImageProperties are what an ImageManifest of kind image has.
type ImageProperties struct {
	Platform   Platform `json:"Platform"`
	Containers []string `json:"Containers"`
	Size       struct {
		Unpacked int64 `json:"Unpacked"`
	} `json:"Size"`
}

// RootFS lists an image's layers by the digest of their unpacked tar, lowest first.
type RootFS struct {
	Type   string   `json:"Type"`
	Layers []string `json:"Layers,omitempty"`
}

// ImageMetadata is what this engine knows of an image beside its contents.
type ImageMetadata struct {
	LastTagTime string `json:"LastTagTime"`
}

// ImageHistory is one row of GET /images/{name}/history.
type ImageHistory struct {
	ID        string   `json:"Id"`
	Created   int64    `json:"Created"`
	CreatedBy string   `json:"CreatedBy"`
	Tags      []string `json:"Tags"`
	Size      int64    `json:"Size"`
	Comment   string   `json:"Comment"`
}

// ImageDelete is one step of DELETE /images/{name}: one of the fields is set.
type ImageDelete struct {
	Untagged string `json:"Untagged,omitempty"`
	Deleted  string `json:"Deleted,omitempty"`
}

// Message is one line of the progress stream of pull, push, load, import and build.
type Message struct {
	Stream         string       `json:"stream,omitempty"`
	Status         string       `json:"status,omitempty"`
	ProgressDetail *Progress    `json:"progressDetail,omitempty"`
	Progress       string       `json:"progress,omitempty"`
	ID             string       `json:"id,omitempty"`
	Error          string       `json:"error,omitempty"`
	ErrorDetail    *ErrorDetail `json:"errorDetail,omitempty"`
	Aux            any          `json:"aux,omitempty"`
}

// Progress is how far a step has come, in bytes unless Units says otherwise.
type Progress struct {
	Current int64  `json:"current,omitempty"`
	Total   int64  `json:"total,omitempty"`
	Units   string `json:"units,omitempty"`
	// HideCounts shows the bar without the numbers.
	HideCounts bool `json:"hidecounts,omitempty"`
}

// ErrorDetail ends a progress stream that failed.
type ErrorDetail struct {
	Code    int    `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

// AuthConfig is one registry login; base64url JSON of it is the X-Registry-Auth header.
type AuthConfig struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	Auth          string `json:"auth,omitempty"`
	ServerAddress string `json:"serveraddress,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}
