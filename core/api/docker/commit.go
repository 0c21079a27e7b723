package docker

import (
	"context"
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/wire"
)

// ContainerCommitter makes images of containers.
type ContainerCommitter interface {
	Commit(ctx context.Context, ref string, o container.CommitOptions) (imageID string, err error)
}

type commits struct{ backend Containers }

func (c commits) routes() []route.Route {
	return []route.Route{{Method: http.MethodPost, Pattern: "/commit", Handle: c.commit}}
}

func (c commits) commit(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[ContainerCommitter](c.backend, "committing a container")
	if err != nil {
		return err
	}
	q := r.Query()
	ref := q.Required("container", "the container's name or ID")
	o := container.CommitOptions{
		Reference: joinTag(q.Text("repo"), q.Text("tag")),
		Comment:   q.Text("comment"),
		Author:    q.Text("author"),
		Pause:     q.BoolOr("pause", true),
		Changes:   q.Texts("changes"),
	}
	if err := q.Err(); err != nil {
		return err
	}
	var body *struct {
		wire.ContainerConfig
		Cmd        words
		Entrypoint words
		Shell      words
	}
	if err := r.Decode(w, &body); err != nil {
		return err
	}
	if body != nil {
		o.Config = &body.ContainerConfig
		o.Config.Cmd, o.Config.Entrypoint, o.Config.Shell = body.Cmd, body.Entrypoint, body.Shell
	}
	id, err := b.Commit(r.Detached(), ref, o)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusCreated, wire.ID{ID: id})
}
