package server

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/cmd/sampan-registry/store"
)

func (c *call) blob() error {
	d, err := digestOf(c.id)
	if err != nil {
		return err
	}
	f, err := c.store.Blob(c.name, d)
	if errors.Is(err, store.ErrBlobUnknown) && c.o.Cache != nil {
		return c.o.Cache.Blob(c.w, c.r, c.name, d)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if c.o.Cache != nil {
		c.o.Cache.Hit("blob")
	}
	c.serveFile(f, d)
	return nil
}

func (c *call) deleteBlob() error {
	d, err := digestOf(c.id)
	if err != nil {
		return err
	}
	if err := c.store.DeleteBlob(c.name, d); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// begin starts an upload, or makes the blob at once: from another repository ("Mounting a blob") or from
// the body ("Single POST").
func (c *call) begin() error {
	q := c.r.URL.Query()
	if mount, from := q.Get("mount"), q.Get("from"); mount != "" {
		d, err := digestOf(mount)
		if err != nil {
			return err
		}
		// Without a source the blob is not looked for: knowing a digest opens nothing.
		if store.ValidName(from) && c.store.Mount(c.name, from, d) == nil {
			return c.created("blobs", d.String())
		}
	}
	id, err := c.store.Begin(c.name)
	if err != nil {
		return err
	}
	c.id = id
	if q.Get("digest") != "" {
		return c.commit()
	}
	return c.accepted(http.StatusAccepted, 0)
}

func (c *call) created(kind, id string) error {
	c.w.Header().Set("Location", "/v2/"+c.name+"/"+kind+"/"+id)
	if kind == "blobs" {
		c.w.Header().Set("Docker-Content-Digest", id)
	}
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

// accepted tells how far an upload is. The end of the range is that of its last byte, so that nothing and
// one byte look the same, as with Docker's registry.
func (c *call) accepted(status int, size int64) error {
	h := c.w.Header()
	h.Set("Location", "/v2/"+c.name+"/blobs/uploads/"+c.id)
	h.Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
	h.Set("Docker-Upload-UUID", c.id)
	h.Set("Content-Length", "0")
	c.w.WriteHeader(status)
	return nil
}

func (c *call) status() error {
	size, err := c.store.Size(c.name, c.id)
	if err != nil {
		return err
	}
	return c.accepted(http.StatusNoContent, size)
}

func (c *call) chunk() error {
	from, err := chunkStart(c.r)
	if err != nil {
		return err
	}
	size, err := c.store.Append(c.name, c.id, from, c.r.Body)
	if errors.Is(err, store.ErrRange) {
		c.w.Header().Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
	}
	if err != nil {
		return err
	}
	return c.accepted(http.StatusAccepted, size)
}

// chunkStart reads Content-Range, which has no unit here: "0-99". Without one a chunk is the next one.
func chunkStart(r *http.Request) (int64, error) {
	value := r.Header.Get("Content-Range")
	if value == "" {
		return -1, nil
	}
	first, last, ok := strings.Cut(strings.TrimPrefix(value, "bytes="), "-")
	a, err1 := strconv.ParseInt(first, 10, 64)
	b, err2 := strconv.ParseInt(last, 10, 64)
	if !ok || err1 != nil || err2 != nil || a < 0 || b < a || r.ContentLength >= 0 && b-a+1 != r.ContentLength {
		return 0, &problem{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "Content-Range " + quoted(value) + ": expected FIRST-LAST of the body's bytes"}
	}
	return a, nil
}

// commit takes the last chunk, which may be empty, and closes the upload.
func (c *call) commit() error {
	d, err := digestOf(c.r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	from, err := chunkStart(c.r)
	if err != nil {
		return err
	}
	if _, err := c.store.Append(c.name, c.id, from, c.r.Body); err != nil {
		return err
	}
	if err := c.store.Commit(c.name, c.id, d); err != nil {
		return err
	}
	return c.created("blobs", d.String())
}

func (c *call) cancel() error {
	if err := c.store.Cancel(c.name, c.id); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
