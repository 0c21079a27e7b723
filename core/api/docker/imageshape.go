package docker

import (
	"encoding/json"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// summary is wire.ImageSummary as clients before v1.44 know it.
type summary struct {
	wire.ImageSummary
	VirtualSize int64 `json:"VirtualSize"`
}

// shapeImages returns the rows for the client's version.
func shapeImages(list []wire.ImageSummary, v route.Version) any {
	for i := range list {
		s := &list[i]
		if v < 43 && len(s.RepoTags) == 0 && len(s.RepoDigests) == 0 {
			s.RepoTags, s.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
		s.RepoTags, s.RepoDigests = orEmpty(s.RepoTags), orEmpty(s.RepoDigests)
	}
	if v >= 44 {
		return orEmpty(list)
	}
	old := make([]summary, len(list))
	for i, s := range list {
		old[i] = summary{s, s.Size}
	}
	return old
}

// imageConfig is the part of a container's configuration that an image has, which is all that
// clients from v1.50 on are shown of it. What has no omitempty is there also when it is not set: clients had always found
// it (Docker since 28.3).
type imageConfig struct {
	User         string              `json:"User"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env"`
	Entrypoint   []string            `json:"Entrypoint"`
	Cmd          []string            `json:"Cmd"`
	Volumes      map[string]struct{} `json:"Volumes"`
	WorkingDir   string              `json:"WorkingDir"`
	Labels       map[string]string   `json:"Labels"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	Healthcheck  *wire.Healthcheck   `json:"Healthcheck,omitempty"`
	OnBuild      []string            `json:"OnBuild"`
	Shell        []string            `json:"Shell,omitempty"`
}

// inspected is wire.ImageInspect with the configuration of v1.50.
type inspected struct {
	wire.ImageInspect
	Config *imageConfig `json:"Config"`
}

// shapeImage returns the image for the client's version.
func shapeImage(i wire.ImageInspect, v route.Version) any {
	i.RepoTags, i.RepoDigests = orEmpty(i.RepoTags), orEmpty(i.RepoDigests)
	i.VirtualSize = 0
	if v < 44 {
		i.VirtualSize = i.Size
		if i.Created == "" {
			i.Created = never
		}
	}
	c := i.Config
	if v < 50 || c == nil {
		return i
	}
	return inspected{i, &imageConfig{
		User: c.User, ExposedPorts: c.ExposedPorts, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd,
		Volumes: c.Volumes, WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal,
		Healthcheck: c.Healthcheck, OnBuild: c.OnBuild, Shell: c.Shell,
	}}
}

// decodePlatform reads a platform as the API has it: JSON as {"os":"linux","architecture":"arm64"}.
func decodePlatform(field, text string) (ocispec.Platform, error) {
	var p ocispec.Platform
	if err := json.Unmarshal([]byte(text), &p); err != nil || p.OS == "" || p.Architecture == "" {
		return p, &fault.Field{Field: field, Given: text, Expected: `JSON such as {"os":"linux","architecture":"amd64"}`}
	}
	return p, nil
}

// onePlatform reads the parameter "platform"; none is nil.
func onePlatform(q *route.Query) (*ocispec.Platform, error) {
	given := q.Texts("platform")
	if len(given) == 0 || given[0] == "" {
		return nil, nil
	}
	if len(given) > 1 {
		return nil, fault.New(fault.Invalid, "multiple platform parameters not supported")
	}
	p, err := decodePlatform("platform", given[0])
	return &p, err
}

// platform is onePlatform for the requests that have it since v1.48.
func (i images) platform(r *route.Request) (*ocispec.Platform, error) {
	if r.Version < 48 {
		return nil, nil
	}
	q := r.Query()
	p, err := onePlatform(q)
	if err == nil {
		err = q.Err()
	}
	return p, err
}
