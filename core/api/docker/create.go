package docker

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

var (
	errStartBody  = fault.New(fault.Invalid, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	errCheckpoint = fault.New(fault.NotImplemented, "starting from a checkpoint is not supported by this daemon")
	errNoConfig   = fault.New(fault.Invalid, "config cannot be empty in order to create a container")
	errNoBody     = fault.New(fault.Invalid, "invalid JSON: got EOF while reading request body")
)

// words is a command: a list of strings, or one string for a list of one.
type words []string

func (s *words) UnmarshalJSON(b []byte) error {
	var list []string
	if err := json.Unmarshal(b, &list); err == nil {
		*s = list
		return nil
	}
	var one string
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*s = words{one}
	return nil
}

// createBody is wire.ContainerCreateRequest with the fields that clients spell in two ways.
type createBody struct {
	wire.ContainerCreateRequest
	Cmd        words `json:"Cmd"`
	Entrypoint words `json:"Entrypoint"`
	Shell      words `json:"Shell"`
}

func (c containers) create(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	name, platform := q.Text("name"), ""
	if r.Version >= 41 {
		platform = q.Text("platform")
	}
	if err := q.Err(); err != nil {
		return err
	}
	var body *createBody
	if err := r.Decode(w, &body); err != nil {
		return err
	}
	switch {
	case body == nil && r.ContentLength == 0:
		return errNoBody
	case body == nil:
		return errNoConfig
	}
	req := body.ContainerCreateRequest
	req.Cmd, req.Entrypoint, req.Shell = body.Cmd, body.Entrypoint, body.Shell
	normalise(&req)
	if err := adapt(&req, r.Version); err != nil {
		return err
	}
	warning, err := placeMACAddress(&req, r.Version)
	if err != nil {
		return err
	}
	answer, err := c.backend.Create(r.Detached(), name, platform, req)
	if err != nil {
		return err
	}
	answer.Warnings = orEmpty(answer.Warnings)
	if warning != "" {
		answer.Warnings = append(answer.Warnings, warning)
	}
	return route.WriteJSON(w, http.StatusCreated, answer)
}

// normalise fills in what a client may leave out, so that nobody below asks for nil.
func normalise(req *wire.ContainerCreateRequest) {
	if req.HostConfig == nil {
		req.HostConfig = &wire.HostConfig{}
	}
	if req.NetworkingConfig == nil {
		req.NetworkingConfig = &wire.NetworkingConfig{}
	}
	endpoints := req.NetworkingConfig.EndpointsConfig
	if endpoints == nil {
		endpoints = map[string]*wire.EndpointSettings{}
		req.NetworkingConfig.EndpointsConfig = endpoints
	}
	for name, e := range endpoints {
		if e == nil {
			endpoints[name] = &wire.EndpointSettings{}
		}
	}
	// "default" is the word of clients that do not know the operating system's default network.
	if m := req.HostConfig.NetworkMode; m == "" || m == "default" {
		req.HostConfig.NetworkMode = "bridge"
		if e, ok := endpoints["default"]; ok {
			delete(endpoints, "default")
			endpoints["bridge"] = e
		}
	}
	// Any number that is no limit means that there is none.
	if p := req.HostConfig.PidsLimit; p != nil && *p <= 0 {
		req.HostConfig.PidsLimit = nil
	}
}

// adapt gives a request the meaning that it had in the client's version: fields that came later
// are ignored, or refused where the client would otherwise get less than it believes; defaults that
// have changed are the old ones. The versions are those of the API's change log.
func adapt(req *wire.ContainerCreateRequest, v route.Version) error {
	host := req.HostConfig
	if v < 25 {
		host.AutoRemove = false // the client itself removed the container
	}
	if v < 40 && host.IpcMode == "" {
		host.IpcMode = "shareable"
	}
	if v < 42 {
		host.ConsoleSize = [2]uint{}
	}
	if v < 43 {
		host.Annotations = nil
	}
	if v < 44 {
		if req.Healthcheck != nil {
			req.Healthcheck.StartInterval = 0
		}
		if n := len(req.NetworkingConfig.EndpointsConfig); n > 1 {
			names := slices.Sorted(maps.Keys(req.NetworkingConfig.EndpointsConfig))
			return fault.New(fault.Invalid, "Container cannot be created with multiple network endpoints: %s", strings.Join(names, ", "))
		}
	}
	if v < 48 {
		for _, e := range req.NetworkingConfig.EndpointsConfig {
			e.GwPriority = 0
		}
	}
	for i := range host.Mounts {
		if err := adaptMount(&host.Mounts[i], v); err != nil {
			return err
		}
	}
	return nil
}

func adaptMount(m *wire.MountSpec, v route.Version) error {
	if v < 42 {
		if m.Type != "volume" {
			m.VolumeOptions = nil
		}
		if m.Type != "tmpfs" {
			m.TmpfsOptions = nil
		}
		if m.BindOptions != nil {
			m.BindOptions.CreateMountpoint = false
		}
	}
	switch {
	case m.BindOptions != nil && m.Type != "bind":
		return fault.New(fault.Invalid, "BindOptions must not be specified on mount type %q", m.Type)
	case m.VolumeOptions != nil && m.Type != "volume":
		return fault.New(fault.Invalid, "VolumeOptions must not be specified on mount type %q", m.Type)
	case m.TmpfsOptions != nil && m.Type != "tmpfs":
		return fault.New(fault.Invalid, "TmpfsOptions must not be specified on mount type %q", m.Type)
	case v < 44 && m.BindOptions != nil && m.BindOptions.ReadOnlyForceRecursive:
		return fault.New(fault.Invalid, "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
	case m.ImageOptions != nil && m.Type != "image":
		return fault.New(fault.Invalid, "ImageOptions must not be specified on mount type %q", m.Type)
	case v < 48 && m.Type == "image":
		return fault.New(fault.Invalid, `Mount type "Image" needs API v1.48 or newer`)
	case v < 45 && m.VolumeOptions != nil && m.VolumeOptions.Subpath != "":
		return fault.New(fault.Invalid, "VolumeOptions.Subpath needs API v1.45 or newer")
	}
	if m.Type == "bind" {
		if v < 40 && m.BindOptions != nil {
			m.BindOptions.NonRecursive = false
		}
		if v < 44 && m.ReadOnly { // read-only was that of the top mount alone
			if m.BindOptions == nil {
				m.BindOptions = &wire.MountBindOptions{}
			}
			m.BindOptions.ReadOnlyNonRecursive = true
		}
	}
	return nil
}

// placeMACAddress moves the container-wide MAC address, which v1.44 deprecated, to the endpoint of
// the container's network. Older clients knew no other place, and what stands elsewhere is ignored.
func placeMACAddress(req *wire.ContainerCreateRequest, v route.Version) (warning string, err error) {
	mac, mode, endpoints := req.MacAddress, req.HostConfig.NetworkMode, req.NetworkingConfig.EndpointsConfig
	if v < 44 {
		for _, e := range endpoints {
			e.MacAddress = ""
		}
	}
	if mac == "" {
		return "", nil
	}
	if mode == "none" || mode == "host" || strings.HasPrefix(mode, "container:") {
		return "", fault.New(fault.Invalid, "conflicting options: mac-address and the network mode")
	}
	e := endpoints[mode]
	switch {
	case e == nil && len(endpoints) == 0:
		e = &wire.EndpointSettings{}
		endpoints[mode] = e
	case e == nil && v < 44:
		for _, only := range endpoints {
			e = only
		}
	case e == nil:
		return "", fault.New(fault.Invalid, "unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
	}
	if e.MacAddress != "" && e.MacAddress != mac {
		return "", fault.New(fault.Invalid, "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
	}
	e.MacAddress, req.MacAddress = mac, ""
	if v < 44 {
		return "", nil
	}
	return "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.", nil
}
