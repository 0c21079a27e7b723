package graph

import (
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/recipe"
)

// The specs are normalised: a size is a number of bytes, a port has its address and protocol, and
// what equals the engine's default is absent. JSON names are the arguments' names in scripts.

// Image is an image that the environment builds.
type Image struct {
	Tags   []string          `json:"tags"` // full references, sorted
	Recipe string            `json:"recipe"`
	Bases  map[string]string `json:"bases,omitempty"` // reference -> ID of the images that it begins with; plan fills it in
	Build  *recipe.Build     `json:"-"`
}

// Network is a network.
type Network struct {
	Driver   string            `json:"driver"`
	Subnet   string            `json:"subnet,omitempty"`
	Gateway  string            `json:"gateway,omitempty"`
	IPRange  string            `json:"ip_range,omitempty"`
	Internal bool              `json:"internal,omitempty"`
	IPv6     bool              `json:"ipv6,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// Volume is a volume.
type Volume struct {
	Driver  string            `json:"driver"`
	Options map[string]string `json:"options,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// Container is a container.
type Container struct {
	Image       string            `json:"image"` // reference
	Pull        string            `json:"-"`     // missing, always, never: says how to get it, not what it is
	Platform    string            `json:"platform,omitempty"`
	Command     []Text            `json:"command,omitempty"`
	Entrypoint  []Text            `json:"entrypoint,omitempty"`
	Env         map[string]Text   `json:"env,omitempty"`
	User        string            `json:"user,omitempty"`
	Workdir     string            `json:"workdir,omitempty"`
	Hostname    string            `json:"hostname,omitempty"`
	Domainname  string            `json:"domainname,omitempty"`
	Networks    []Address         `json:"networks,omitempty"`
	NetworkMode string            `json:"network_mode,omitempty"`
	Aliases     []string          `json:"aliases,omitempty"`
	Ports       []string          `json:"ports,omitempty"` // HOSTIP:HOSTPORT:PORT/PROTOCOL
	Mounts      []Mount           `json:"mounts,omitempty"`
	Restart     string            `json:"restart,omitempty"`
	Once        bool              `json:"-"` // ending with status 0 is not drift
	Memory      int64             `json:"memory,omitempty"`
	CPUs        int64             `json:"cpus,omitempty"` // billionths
	PidsLimit   int64             `json:"pids_limit,omitempty"`
	ShmSize     int64             `json:"shm_size,omitempty"`
	ReadOnly    bool              `json:"read_only,omitempty"`
	Init        bool              `json:"init,omitempty"`
	TTY         bool              `json:"tty,omitempty"`
	StdinOpen   bool              `json:"stdin_open,omitempty"`
	Privileged  bool              `json:"privileged,omitempty"`
	CapAdd      []string          `json:"cap_add,omitempty"`
	CapDrop     []string          `json:"cap_drop,omitempty"`
	GroupAdd    []string          `json:"group_add,omitempty"`
	SecurityOpt []string          `json:"security_opt,omitempty"`
	DNS         []string          `json:"dns,omitempty"`
	DNSSearch   []string          `json:"dns_search,omitempty"`
	ExtraHosts  []string          `json:"extra_hosts,omitempty"`
	Devices     []string          `json:"devices,omitempty"`
	Sysctls     map[string]string `json:"sysctls,omitempty"`
	Ulimits     []wire.Ulimit     `json:"ulimits,omitempty"`
	Labels      map[string]Text   `json:"labels,omitempty"`
	Health      *Health           `json:"health,omitempty"`
	StopSignal  string            `json:"stop_signal,omitempty"`
	StopTimeout *int64            `json:"stop_timeout,omitempty"` // seconds
}

// Mount is what a container sees at Target.
type Mount struct {
	Type     string  `json:"type"` // volume, bind, tmpfs
	Volume   Address `json:"volume,omitzero"`
	Source   string  `json:"source,omitempty"`
	Target   string  `json:"target"`
	Subpath  string  `json:"subpath,omitempty"`
	ReadOnly bool    `json:"read_only,omitempty"`
	Size     int64   `json:"size,omitempty"`
	Mode     uint32  `json:"mode,omitempty"`
}

// Health is a probe; times are nanoseconds.
type Health struct {
	Test          []string `json:"test"`
	Interval      int64    `json:"interval,omitempty"`
	Timeout       int64    `json:"timeout,omitempty"`
	StartPeriod   int64    `json:"start_period,omitempty"`
	StartInterval int64    `json:"start_interval,omitempty"`
	Retries       int64    `json:"retries,omitempty"`
}

// Unknowns lists the unknowns among the container's texts.
func (c *Container) Unknowns() []*Unknown {
	var out []*Unknown
	add := func(t Text) {
		if t.Unknown != nil {
			out = append(out, t.Unknown)
		}
	}
	for _, t := range c.Command {
		add(t)
	}
	for _, t := range c.Entrypoint {
		add(t)
	}
	for _, t := range c.Env {
		add(t)
	}
	for _, t := range c.Labels {
		add(t)
	}
	return out
}
