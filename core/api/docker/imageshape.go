package docker

import (
	"encoding/json"

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
// clients from v1.50 on are shown of it.
type imageConfig struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	Healthcheck  *wire.Healthcheck   `json:"Healthcheck,omitempty"`
	OnBuild      []string            `json:"OnBuild,omitempty"`
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

// checkPlatform refuses the parameter "platform" (v1.48) when the image is not of that platform.
func (i images) checkPlatform(r *route.Request, ref string) error {
	q := r.Query()
	given := q.Texts("platform")
	if err := q.Err(); err != nil || r.Version < 48 || len(given) == 0 || given[0] == "" {
		return err
	}
	if len(given) > 1 {
		return fault.New(fault.Invalid, "multiple platform parameters not supported")
	}
	_, err := i.ofPlatform(r, ref, given[0])
	return err
}

// ofPlatform returns the image if it is of the platform: JSON as {"os":"linux","architecture":"arm64"},
// "" for any.
func (i images) ofPlatform(r *route.Request, ref, platform string) (wire.ImageInspect, error) {
	var p wire.Platform
	if platform != "" {
		if err := json.Unmarshal([]byte(platform), &p); err != nil || p.OS == "" || p.Architecture == "" {
			return wire.ImageInspect{}, &fault.Field{Field: "platform", Given: platform, Expected: `JSON such as {"os":"linux","architecture":"amd64"}`}
		}
	}
	answer, err := i.backend.Inspect(r.Context(), ref)
	if err != nil {
		return wire.ImageInspect{}, err
	}
	if platform != "" && (p.OS != answer.Os || p.Architecture != answer.Architecture || p.Variant != "" && p.Variant != answer.Variant) {
		return wire.ImageInspect{}, fault.New(fault.NotFound, "image with reference %s was found but does not provide the specified platform (%s/%s), it is of %s/%s",
			ref, p.OS, p.Architecture, answer.Os, answer.Architecture)
	}
	return answer, nil
}
