// Package driver is where nouns and plugins meet: it gives the connection to a plugin the shape of
// the noun's driver interface. A file for each kind.
package driver

import (
	"context"

	"github.com/sampan-project/sampan/core/plugin"
	"github.com/sampan-project/sampan/core/wire"
	pluginv1 "github.com/sampan-project/sampan/proto/sampan/plugin/v1"
)

// Set is the drivers of a plugin host. It satisfies network.Drivers and network.Restarts, and what
// the API shows of plugins.
type Set struct {
	host *plugin.Host
}

// New returns the drivers of a host.
func New(h *plugin.Host) *Set { return &Set{h} }

// Schemas describes what every driver takes. It starts those that do not run; one that does not
// start is left out, and Plugins says why.
func (s *Set) Schemas(ctx context.Context) ([]wire.Schema, error) {
	list := []wire.Schema{}
	for _, p := range s.host.Plugins() {
		d, err := p.Describe(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		}
		list = append(list, schema(d))
	}
	return list, nil
}

// Plugins describes the programs, running or not. It starts none and never waits.
func (s *Set) Plugins(context.Context) ([]wire.PluginInfo, error) {
	list := []wire.PluginInfo{}
	for _, p := range s.host.Plugins() {
		status := p.Status()
		info := wire.PluginInfo{
			Kind: p.Kind, Name: p.Name, Version: status.Version, Path: p.Path, Digest: p.Digest(),
			State: string(status.State), Pid: status.Pid,
		}
		if status.Err != nil {
			info.Error = status.Err.Error()
		}
		list = append(list, info)
	}
	return list, nil
}

// schema is what a plugin says of itself in the words of the API.
func schema(d *pluginv1.DescribeResponse) wire.Schema {
	out := wire.Schema{Kind: d.GetKind(), Driver: d.GetName(), Version: d.GetVersion(), Doc: d.GetDoc(), Attributes: []wire.Attribute{}}
	for _, a := range d.GetSchema().GetAttributes() {
		out.Attributes = append(out.Attributes, wire.Attribute{
			Name: a.GetName(), Aliases: a.GetAliases(), Type: a.GetType(), Default: a.GetDefault(), Required: a.GetRequired(), Enum: a.GetEnum(),
			Min: a.Min, Max: a.Max, InPlace: a.GetInPlace(), Doc: a.GetDoc(),
		})
	}
	return out
}
