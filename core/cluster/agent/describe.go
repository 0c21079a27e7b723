package agent

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/wire"
)

// Describe is what the node says of itself; TLSInfo is left to the caller.
func (a *Agent) Describe(ctx context.Context) (wire.NodeDescription, error) {
	info, err := a.o.Info(ctx)
	if err != nil {
		return wire.NodeDescription{}, err
	}
	labels := map[string]string{}
	for _, l := range info.Labels {
		if key, value, has := strings.Cut(l, "="); has {
			labels[key] = value
		}
	}
	var plugins []wire.NodePlugin
	for kind, names := range map[string][]string{"Authorization": info.Plugins.Authorization, "Log": info.Plugins.Log,
		"Network": info.Plugins.Network, "Volume": info.Plugins.Volume} {
		for _, name := range names {
			plugins = append(plugins, wire.NodePlugin{Type: kind, Name: name})
		}
	}
	slices.SortFunc(plugins, func(a, b wire.NodePlugin) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	return wire.NodeDescription{
		Hostname:  info.Name,
		Platform:  wire.NodePlatform{Architecture: info.Architecture, OS: info.OSType},
		Resources: wire.NodeResources{NanoCPUs: int64(info.NCPU) * 1e9, MemoryBytes: info.MemTotal},
		Engine:    wire.NodeEngine{EngineVersion: info.ServerVersion, Labels: labels, Plugins: slices.Compact(plugins)},
	}, nil
}
