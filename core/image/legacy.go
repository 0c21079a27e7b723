package image

import (
	"archive/tar"
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
)

// legacyLayer is what the oldest archives say of a layer in its directory's file "json" (Docker image
// specification v1.0). The top one has the image's configuration.
type legacyLayer struct {
	ID           string          `json:"id,omitempty"`
	Parent       string          `json:"parent,omitempty"`
	Created      time.Time       `json:"created"`
	Author       string          `json:"author,omitempty"`
	Config       json.RawMessage `json:"config,omitempty"`
	Architecture string          `json:"architecture,omitempty"`
	OS           string          `json:"os,omitempty"`
	LayerID      digest.Digest   `json:"layer_id"`
}

// legacyLayers returns an image's layers as the oldest readers know them, lowest first. An ID is the digest
// of what the layer is and stands on.
func (a *archiveWriter) legacyLayers(e *entry) ([]legacyLayer, error) {
	var list []legacyLayer
	parent := ""
	for i, l := range e.Layers {
		v := legacyLayer{Parent: parent, LayerID: l.Chain, Created: epoch.UTC()}
		if i == len(e.Layers)-1 {
			raw, err := a.s.o.Content.ReadAll(e.record.ID, maxConfig)
			if err != nil {
				return nil, err
			}
			var c struct {
				Config json.RawMessage `json:"config"`
			}
			if err := json.Unmarshal(raw, &c); err != nil {
				return nil, err
			}
			v.Config, v.Author = c.Config, e.Image.Config.Author
			v.Architecture, v.OS = e.Image.Config.Architecture, e.Image.Config.OS
			if t := e.created(); !t.IsZero() {
				v.Created = t
			}
		}
		data, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		v.ID = digest.FromBytes(data).Encoded()
		parent = v.ID
		list = append(list, v)
	}
	return list, nil
}

// legacy writes the directories of an image's layers: VERSION, json and a link to the blob as layer.tar. It
// returns the ID of the top one, "" when there is none.
func (a *archiveWriter) legacy(e *entry) (string, error) {
	layers, err := a.legacyLayers(e)
	if err != nil {
		return "", err
	}
	top := ""
	for i, l := range layers {
		top = l.ID
		if a.dirs[l.ID] {
			continue
		}
		a.dirs[l.ID] = true
		for _, h := range []tar.Header{
			{Typeflag: tar.TypeDir, Name: l.ID + "/", Mode: 0o755, ModTime: epoch},
			{Typeflag: tar.TypeSymlink, Name: l.ID + "/layer.tar", Linkname: "../" + blobPath(e.Layers[i].Blob.Digest), Mode: 0o777, ModTime: epoch},
		} {
			if err := a.w.WriteHeader(&h); err != nil {
				return "", err
			}
		}
		if err := a.file(l.ID+"/VERSION", []byte("1.0")); err != nil {
			return "", err
		}
		if err := a.json(l.ID+"/json", l); err != nil {
			return "", err
		}
	}
	return top, nil
}
