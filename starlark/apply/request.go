package apply

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/graph"
)

// labels are a resource's own labels and those by which plan finds it again.
func labels(env string, r *graph.Resource, own map[string]string) map[string]string {
	out := make(map[string]string, len(own)+3)
	for k, v := range own {
		out[k] = v
	}
	out[graph.LabelEnv], out[graph.LabelAddress] = env, r.Address.String()
	out[graph.LabelWanted] = graph.CanonicalJSON(graph.Canonical(r.Spec))
	return out
}

func imageLabels(env string, r *graph.Resource) map[string]string {
	return map[string]string{
		graph.LabelImageEnv: env, graph.LabelImageAddress: r.Address.String(),
		graph.LabelImageWanted: graph.CanonicalJSON(graph.Canonical(r.Spec)),
	}
}

// networkRequest is the body of the network's creation.
func networkRequest(env string, r *graph.Resource, spec *graph.Network) wire.NetworkCreateRequest {
	q := wire.NetworkCreateRequest{
		Name: r.Name, Driver: spec.Driver, Internal: spec.Internal, Attachable: true,
		Options: spec.Options, Labels: labels(env, r, spec.Labels),
	}
	if q.Options == nil {
		q.Options = map[string]string{}
	}
	if spec.IPv6 {
		q.EnableIPv6 = &spec.IPv6
	}
	if spec.Subnet != "" {
		q.IPAM = &wire.IPAM{Driver: "default", Config: []wire.IPAMConfig{{Subnet: spec.Subnet, Gateway: spec.Gateway, IPRange: spec.IPRange}}}
	}
	return q
}

func volumeRequest(env string, r *graph.Resource, spec *graph.Volume) wire.VolumeCreateRequest {
	return wire.VolumeCreateRequest{Name: r.Name, Driver: spec.Driver, DriverOpts: spec.Options, Labels: labels(env, r, spec.Labels)}
}

// requester makes the body of a container's creation.
type requester struct {
	ctx    context.Context
	graph  *graph.Graph
	lookup graph.Lookup
	err    error
}

// text resolves a text, keeping the first error.
func (q *requester) text(t graph.Text) string {
	s, err := t.Resolve(q.ctx, q.lookup)
	if err != nil && q.err == nil {
		q.err = err
	}
	return s
}

func (q *requester) texts(list []graph.Text) []string {
	var out []string
	for _, t := range list {
		out = append(out, q.text(t))
	}
	return out
}

func (q *requester) name(a graph.Address) string {
	r := q.graph.Find(a)
	if r == nil {
		q.err = fmt.Errorf("%s is not in the graph", a) // a reference comes from the same script
		return ""
	}
	return r.Name
}

func (q *requester) container(r *graph.Resource, spec *graph.Container) (wire.ContainerCreateRequest, error) {
	own := make(map[string]string, len(spec.Labels))
	for k, v := range spec.Labels {
		own[k] = q.text(v)
	}
	config := wire.ContainerConfig{
		Image: spec.Image, Cmd: q.texts(spec.Command), Entrypoint: q.texts(spec.Entrypoint), User: spec.User, WorkingDir: spec.Workdir,
		Hostname: spec.Hostname, Domainname: spec.Domainname, Tty: spec.TTY, OpenStdin: spec.StdinOpen, StopSignal: spec.StopSignal,
		Labels: labels(q.graph.Env, r, own),
	}
	for _, name := range arg.Keys(spec.Env) {
		config.Env = append(config.Env, name+"="+q.text(spec.Env[name]))
	}
	if spec.StopTimeout != nil {
		seconds := int(*spec.StopTimeout)
		config.StopTimeout = &seconds
	}
	if h := spec.Health; h != nil {
		config.Healthcheck = &wire.Healthcheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: int(h.Retries)}
	}
	host := q.host(spec)
	config.ExposedPorts, host.PortBindings = ports(spec.Ports)
	networking := q.networks(r, spec, host)
	return wire.ContainerCreateRequest{ContainerConfig: config, HostConfig: host, NetworkingConfig: networking}, q.err
}

func (q *requester) host(spec *graph.Container) *wire.HostConfig {
	h := &wire.HostConfig{
		NetworkMode: spec.NetworkMode, Privileged: spec.Privileged, ReadonlyRootfs: spec.ReadOnly, CapAdd: spec.CapAdd, CapDrop: spec.CapDrop,
		GroupAdd: spec.GroupAdd, SecurityOpt: spec.SecurityOpt, DNS: spec.DNS, DNSSearch: spec.DNSSearch, DNSOptions: []string{},
		ExtraHosts: spec.ExtraHosts, Sysctls: spec.Sysctls, ShmSize: spec.ShmSize, RestartPolicy: restart(spec.Restart),
		Resources: wire.Resources{Memory: spec.Memory, NanoCPUs: spec.CPUs, Ulimits: spec.Ulimits},
	}
	if spec.Init {
		h.Init = &spec.Init
	}
	if spec.PidsLimit > 0 {
		h.PidsLimit = &spec.PidsLimit
	}
	for _, d := range spec.Devices {
		parts := strings.Split(d, ":")
		h.Devices = append(h.Devices, wire.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[1], CgroupPermissions: parts[2]})
	}
	for _, m := range spec.Mounts {
		name := ""
		if !m.Volume.IsZero() {
			name = q.name(m.Volume)
		}
		h.Mounts = append(h.Mounts, MountSpec(m, name))
	}
	return h
}

// MountSpec is a mount as the engine's API has it; volume is the volume's name in the engine.
func MountSpec(m graph.Mount, volume string) wire.MountSpec {
	s := wire.MountSpec{Type: m.Type, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	switch m.Type {
	case "volume":
		s.Source = volume
		if m.Subpath != "" {
			s.VolumeOptions = &wire.MountVolumeOptions{Subpath: m.Subpath}
		}
	case "tmpfs":
		if m.Size > 0 || m.Mode > 0 {
			s.TmpfsOptions = &wire.MountTmpfsOptions{SizeBytes: m.Size, Mode: m.Mode}
		}
	}
	return s
}

func restart(policy string) wire.RestartPolicy {
	name, times, _ := strings.Cut(policy, ":")
	if name == "" {
		name = "no"
	}
	n, _ := strconv.Atoi(times) // "" is 0; the language has checked the rest
	return wire.RestartPolicy{Name: name, MaximumRetryCount: n}
}

// ports takes the normalised HOSTIP:HOSTPORT:PORT/PROTOCOL apart.
func ports(list []string) (map[string]struct{}, map[string][]wire.PortBinding) {
	if len(list) == 0 {
		return nil, nil
	}
	exposed, bindings := map[string]struct{}{}, map[string][]wire.PortBinding{}
	for _, p := range list {
		i := strings.LastIndexByte(p, ':')
		j := strings.LastIndexByte(p[:i], ':')
		inside := p[i+1:]
		exposed[inside] = struct{}{}
		bindings[inside] = append(bindings[inside], wire.PortBinding{HostIP: strings.Trim(p[:j], "[]"), HostPort: p[j+1 : i]})
	}
	return exposed, bindings
}

// networks places the container: its name in the script, and its aliases, are its names on every
// network of the environment.
func (q *requester) networks(r *graph.Resource, spec *graph.Container, host *wire.HostConfig) *wire.NetworkingConfig {
	if len(spec.Networks) == 0 {
		return nil
	}
	aliases := append([]string{r.Address.Name}, spec.Aliases...)
	n := &wire.NetworkingConfig{EndpointsConfig: map[string]*wire.EndpointSettings{}}
	for i, a := range spec.Networks {
		name := q.name(a)
		if i == 0 {
			host.NetworkMode = name
		}
		n.EndpointsConfig[name] = &wire.EndpointSettings{Aliases: aliases}
	}
	return n
}
