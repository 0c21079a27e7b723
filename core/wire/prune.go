package wire

// ContainersPrune answers POST /containers/prune.
type ContainersPrune struct {
	ContainersDeleted []string `json:"ContainersDeleted"`
	SpaceReclaimed    uint64   `json:"SpaceReclaimed"`
}

// ImagesPrune answers POST /images/prune.
type ImagesPrune struct {
	ImagesDeleted  []ImageDelete `json:"ImagesDeleted"`
	SpaceReclaimed uint64        `json:"SpaceReclaimed"`
}

// BuildPrune answers POST /build/prune.
type BuildPrune struct {
	CachesDeleted  []string `json:"CachesDeleted"`
	SpaceReclaimed uint64   `json:"SpaceReclaimed"`
}

// DiskUsage answers GET /system/df.
type DiskUsage struct {
	LayersSize int64              `json:"LayersSize"`
	Images     []ImageSummary     `json:"Images"`
	Containers []ContainerSummary `json:"Containers"`
	Volumes    []*Volume          `json:"Volumes"`
	BuildCache []BuildCacheRecord `json:"BuildCache"`
}

// BuildCacheRecord is one cached build step of DiskUsage.
type BuildCacheRecord struct {
	ID          string   `json:"ID"`
	Parents     []string `json:"Parents,omitempty"`
	Type        string   `json:"Type"`
	Description string   `json:"Description"`
	InUse       bool     `json:"InUse"`
	Shared      bool     `json:"Shared"`
	Size        int64    `json:"Size"`
	CreatedAt   string   `json:"CreatedAt"` // RFC 3339 with nanoseconds
	LastUsedAt  *string  `json:"LastUsedAt"`
	UsageCount  int      `json:"UsageCount"`
}
