package docker

import (
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/wire"
)

// What clients of older versions are shown, by the API's change log. Whatever is a matter of one
// handler stands there; requests of older clients are in create.go.

// oldInfo is wire.Info with what v1.49 and v1.50 dropped.
type oldInfo struct {
	wire.Info
	BridgeNfIptables  bool `json:"BridgeNfIptables"`
	BridgeNfIP6tables bool `json:"BridgeNfIp6tables"`
}

// olderInfo is oldInfo with what v1.49 dropped of its parts.
type olderInfo struct {
	oldInfo
	RegistryConfig   *oldRegistryConfig `json:"RegistryConfig"`
	ContainerdCommit oldCommit          `json:"ContainerdCommit"`
	RuncCommit       oldCommit          `json:"RuncCommit"`
	InitCommit       oldCommit          `json:"InitCommit"`
}

type oldRegistryConfig struct {
	wire.RegistryConfig
	// Layers that may not be distributed are no more: there are none of these.
	CIDRs     []string `json:"AllowNondistributableArtifactsCIDRs"`
	Hostnames []string `json:"AllowNondistributableArtifactsHostnames"`
}

// oldCommit has the commit that the daemon was made for, which is the one there is.
type oldCommit struct{ ID, Expected string }

// shapeInfo returns the information for the client's version.
func shapeInfo(info wire.Info, v route.Version) any {
	if v < 25 { // names alone: "name=seccomp,profile=builtin"
		info.SecurityOptions = slices.Clone(info.SecurityOptions)
		for i, option := range info.SecurityOptions {
			name, _, _ := strings.Cut(option, ",")
			info.SecurityOptions[i] = strings.TrimPrefix(name, "name=")
		}
	}
	if v >= 50 {
		return info
	}
	old := oldInfo{info, bridgeFilter("iptables"), bridgeFilter("ip6tables")}
	if v >= 49 {
		return old
	}
	commit := func(c wire.InfoCommit) oldCommit { return oldCommit{c.ID, c.ID} }
	older := olderInfo{oldInfo: old, ContainerdCommit: commit(info.ContainerdCommit), RuncCommit: commit(info.RuncCommit), InitCommit: commit(info.InitCommit)}
	if info.RegistryConfig != nil {
		older.RegistryConfig = &oldRegistryConfig{RegistryConfig: *info.RegistryConfig}
	}
	return older
}

// shapeInspect adds to the aliases on networks of users, up to v1.44, the names that a container has by
// itself. The answer's maps are the manager's own: they are copied.
func shapeInspect(c *wire.ContainerInspect, v route.Version) {
	if v >= 45 || c.NetworkSettings == nil || c.Config == nil {
		return
	}
	settings := *c.NetworkSettings
	settings.Networks = make(map[string]*wire.EndpointSettings, len(settings.Networks))
	for name, e := range c.NetworkSettings.Networks {
		if e != nil && name != "bridge" && name != "host" && name != "none" {
			copied := *e
			copied.Aliases = slices.Clone(e.Aliases)
			for _, alias := range []string{c.ID[:min(12, len(c.ID))], c.Config.Hostname} {
				if alias != "" && !slices.Contains(copied.Aliases, alias) {
					copied.Aliases = append(copied.Aliases, alias)
				}
			}
			e = &copied
		}
		settings.Networks[name] = e
	}
	c.NetworkSettings = &settings
}

// oldCacheRecord is wire.BuildCacheRecord with the one parent that clients up to v1.41 know.
type oldCacheRecord struct {
	wire.BuildCacheRecord
	Parent  string   `json:"Parent,omitempty"`
	Parents []string `json:"Parents,omitempty"` // never set: it hides the newer field
}

// shapeUsage returns the sums for the client's version.
func shapeUsage(u wire.DiskUsage, v route.Version) any {
	for i := range u.Containers {
		shapeSummary(&u.Containers[i], v)
	}
	switch {
	case v >= 44:
		return u
	case v >= 42:
		return struct {
			wire.DiskUsage
			Images any `json:"Images"`
		}{u, shapeImages(u.Images, v)}
	}
	var cache []oldCacheRecord
	for _, r := range u.BuildCache {
		old := oldCacheRecord{BuildCacheRecord: r}
		if len(r.Parents) > 0 {
			old.Parent = r.Parents[0]
		}
		cache = append(cache, old)
	}
	return struct {
		wire.DiskUsage
		Images      any              `json:"Images"`
		BuildCache  []oldCacheRecord `json:"BuildCache"`
		BuilderSize int64            `json:"BuilderSize"`
	}{u, shapeImages(u.Images, v), orEmpty(cache), cacheSize(u.BuildCache)}
}
