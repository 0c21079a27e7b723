package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/wire"
)

// ContainerCopier copies files into and out of a container, running or not, as tar archives. The
// archive that CopyTo reads may be compressed.
type ContainerCopier interface {
	StatPath(ctx context.Context, ref, path string) (wire.PathStat, error)
	CopyFrom(ctx context.Context, ref, path string) (io.ReadCloser, wire.PathStat, error)
	CopyTo(ctx context.Context, ref, path string, r io.Reader, noOverwriteDirNonDir, copyUIDGID bool) error
}

func (c containers) copier() (ContainerCopier, error) {
	return ability[ContainerCopier](c.backend, "copying files of a container")
}

const pathExpected = "a path in the container"

// setPathStat describes the path in a header: HEAD has no body, and GET's is the archive.
func setPathStat(w http.ResponseWriter, stat wire.PathStat) error {
	b, err := json.Marshal(stat)
	if err != nil {
		return err
	}
	w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(b))
	return nil
}

func (c containers) statPath(w http.ResponseWriter, r *route.Request) error {
	b, err := c.copier()
	if err != nil {
		return err
	}
	q := r.Query()
	path := q.Required("path", pathExpected)
	if err := q.Err(); err != nil {
		return err
	}
	stat, err := b.StatPath(r.Context(), r.Variable(), path)
	if err != nil {
		return err
	}
	return setPathStat(w, stat)
}

func (c containers) copyFrom(w http.ResponseWriter, r *route.Request) error {
	b, err := c.copier()
	if err != nil {
		return err
	}
	q := r.Query()
	path := q.Required("path", pathExpected)
	if err := q.Err(); err != nil {
		return err
	}
	archive, stat, err := b.CopyFrom(r.Context(), r.Variable(), path)
	if err != nil {
		return err
	}
	defer archive.Close()
	if err := setPathStat(w, stat); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	_, err = io.Copy(w, archive)
	return err
}

func (c containers) copyTo(w http.ResponseWriter, r *route.Request) error {
	b, err := c.copier()
	if err != nil {
		return err
	}
	q := r.Query()
	path := q.Required("path", pathExpected)
	keepDirs, owner := q.Bool("noOverwriteDirNonDir"), q.Bool("copyUIDGID")
	if err := q.Err(); err != nil {
		return err
	}
	return b.CopyTo(r.Context(), r.Variable(), path, r.Upload(w), keepDirs, owner)
}
