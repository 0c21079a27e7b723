package container

import (
	"context"
	"io"
	"strings"

	"github.com/sampan-project/sampan/core/container/archive"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
)

// Export writes the container's root filesystem as a tar archive, without what is mounted in it.
func (m *Manager) Export(ctx context.Context, ref string, w io.Writer) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	root, err := m.openRoot(ctx, c, false)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := archive.Write(w, root, archive.WriteOptions{OneMount: true, NoRoot: true, IDs: m.mappingNow(c)}); err != nil {
		return err
	}
	rec, _ := c.snapshot()
	if err := m.wholeStill(ctx, &rec); err != nil {
		return err
	}
	m.emit(&rec, "export")
	return nil
}

// Commit makes an image of what the container has written, and returns its id.
func (m *Manager) Commit(ctx context.Context, ref string, o CommitOptions) (_ string, err error) {
	op := m.o.Operations.Begin("container", "commit", ref)
	defer func() { op.End(err) }()
	c, err := m.find(ref)
	if err != nil {
		return "", err
	}
	rec, st := c.snapshot()
	config := rec.Config
	if o.Config != nil {
		own := *o.Config
		merge(&own, &config)
		config = own
	}
	config.Image = ""
	if err := image.ParseChanges(&config, o.Changes); err != nil {
		return "", err
	}
	base, err := m.o.Images.Get(ctx, rec.ImageID.String())
	if fault.Is(err, fault.NotFound) {
		return "", fault.New(fault.Conflict, "cannot commit container %s: its image %s was removed", rec.Name, rec.ImageID)
	}
	if err != nil {
		return "", err
	}
	if o.Pause && st.Phase == running {
		m.setForCommit(c, true)
		defer m.setForCommit(c, false)
		if err := m.Pause(ctx, rec.ID); err != nil {
			return "", err
		}
		defer func() {
			if err := m.resume(context.WithoutCancel(ctx), c); err != nil {
				m.log.Error("resume a container after its commit", "container", rec.ID, "error", err)
			}
		}()
	}
	request := image.CommitRequest{Base: base, SnapshotKey: rec.ID, Config: config, Author: o.Author, Comment: o.Comment, CreatedBy: strings.Join(rec.Config.Cmd, " ")}
	if o.Reference != "" {
		request.Names = []string{o.Reference}
	}
	img, err := m.o.Images.Commit(ctx, request)
	if err != nil {
		return "", err
	}
	m.emit(&rec, "commit", "comment", o.Comment, "imageID", img.ID.String(), "imageRef", o.Reference)
	return img.ID.String(), nil
}
