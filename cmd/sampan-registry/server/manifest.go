package server

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/cmd/sampan-registry/store"
)

func (c *call) manifest() error {
	m, err := c.find()
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", m.MediaType)
	h.Set("Docker-Content-Digest", m.Digest.String())
	h.Set("ETag", `"`+m.Digest.String()+`"`)
	http.ServeContent(c.w, c.r, "", time.Time{}, bytes.NewReader(m.Content))
	return nil
}

func (c *call) find() (store.Manifest, error) {
	d, err := c.reference()
	if err != nil {
		return store.Manifest{}, err
	}
	if c.o.Cache != nil {
		return c.o.Cache.Manifest(c.r.Context(), c.name, c.id)
	}
	if d == "" {
		if d, err = c.store.Resolve(c.name, c.id); err != nil {
			return store.Manifest{}, err
		}
	}
	return c.store.Manifest(c.name, d)
}

// reference checks what the path names: a digest, which it returns, or a tag.
func (c *call) reference() (digest.Digest, error) {
	if store.ValidTag(c.id) {
		return "", nil
	}
	return digestOf(c.id)
}

// maxTags bounds the tags that a manifest gets at once.
const maxTags = 100

// putManifest takes a manifest by tag, or by digest with the tags that the query names (the specification after 1.1,
// "Pushing Manifests").
func (c *call) putManifest() error {
	d, err := c.reference()
	if err != nil {
		return err
	}
	content, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, store.MaxManifest))
	if err != nil {
		return err
	}
	tags := c.r.URL.Query()["tag"]
	if d == "" {
		tags, d = append(tags, c.id), digest.FromBytes(content)
	} else if got := d.Algorithm().FromBytes(content); got != d {
		return &problem{http.StatusBadRequest, "DIGEST_INVALID", "manifest: expected " + d.String() + ", the content has " + got.String()}
	}
	mediaType, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil {
		return &problem{http.StatusBadRequest, "MANIFEST_INVALID", "Content-Type " + quoted(c.r.Header.Get("Content-Type")) + ": expected the manifest's media type"}
	}
	if len(tags) > maxTags || slices.ContainsFunc(tags, func(tag string) bool { return !store.ValidTag(tag) }) {
		return &problem{http.StatusBadRequest, "TAG_INVALID", "expected at most " + strconv.Itoa(maxTags) + " tags of letters, digits, and . _ -"}
	}
	subject, err := c.store.PutManifest(c.name, tags, store.Manifest{Digest: d, MediaType: mediaType, Content: content}, false)
	if err != nil {
		return err
	}
	if subject != "" {
		c.w.Header().Set("OCI-Subject", subject.String())
	}
	for _, tag := range c.r.URL.Query()["tag"] {
		c.w.Header().Add("OCI-Tag", tag)
	}
	c.w.Header().Set("Docker-Content-Digest", d.String())
	return c.created("manifests", d.String())
}

func (c *call) deleteManifest() error {
	d, err := c.reference()
	if err != nil {
		return err
	}
	if d == "" {
		err = c.store.Untag(c.name, c.id)
	} else {
		err = c.store.DeleteManifest(c.name, d)
	}
	if err == nil {
		c.w.WriteHeader(http.StatusAccepted)
	}
	return err
}
