package mirror

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/cmd/sampan-registry/store"
	"github.com/sampan-project/sampan/core/fault"
)

// patience is how long a blob may take to come.
const patience = 6 * time.Hour

// arrival is a blob on its way into the store. However many ask for it, it comes once, and everyone reads the
// file that grows. It goes on when they go away: it will be asked for again.
type arrival struct {
	opened  chan struct{} // closed when the other registry has answered; what follows is set then
	refused error
	file    *os.File // for reading at any place; closed by the last who reads
	total   int64

	mu      sync.Mutex
	grown   *sync.Cond
	done    bool
	err     error
	readers int
}

func newArrival() *arrival {
	a := &arrival{opened: make(chan struct{}), readers: 2} // who asked, and who receives
	a.grown = sync.NewCond(&a.mu)
	return a
}

// Blob writes the answer to a request for a blob that the store has not.
func (c *Cache) Blob(w http.ResponseWriter, r *http.Request, repository string, d digest.Digest) error {
	c.requests.Add(1, "blob", "miss")
	if r.Method == http.MethodHead {
		size, err := c.size(r.Context(), repository, d)
		if err != nil {
			return err
		}
		describe(w.Header(), d, size)
		w.WriteHeader(http.StatusOK)
		return nil
	}
	a, err := c.arrive(r.Context(), repository, d)
	if err != nil {
		return err
	}
	defer a.leave()
	describe(w.Header(), d, a.total)
	// A part is not looked for in what grows: by the specification the whole may be sent instead.
	if _, err := io.Copy(w, &reader{a: a}); err != nil {
		// The client has a length and must see that this is not all.
		panic(http.ErrAbortHandler)
	}
	return nil
}

func describe(h http.Header, d digest.Digest, size int64) {
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Content-Length", strconv.FormatInt(size, 10))
}

// size asks how large a blob is. Who asks just that has it, as a rule, or wants to know whether it is there: it
// is not fetched for that.
func (c *Cache) size(ctx context.Context, repository string, d digest.Digest) (int64, error) {
	if d.Algorithm() != digest.SHA256 {
		return 0, store.ErrBlobUnknown
	}
	layer, err := c.puller.Layer(ctx, c.registry.Repo(repository).Digest(d.String()))
	if err != nil {
		return 0, blobError(err)
	}
	size, err := layer.Size()
	if err != nil {
		return 0, blobError(err)
	}
	return size, nil
}

// arrive begins to fetch a blob, or joins those who wait for it.
func (c *Cache) arrive(ctx context.Context, repository string, d digest.Digest) (*arrival, error) {
	if d.Algorithm() != digest.SHA256 {
		return nil, store.ErrBlobUnknown
	}
	key := repository + "@" + d.String()
	c.mu.Lock()
	a := c.arriving[key]
	if a == nil || !a.join() {
		a = newArrival()
		c.arriving[key] = a
		go c.bring(context.WithoutCancel(ctx), a, key, repository, d)
	}
	c.mu.Unlock()
	select {
	case <-a.opened:
	case <-ctx.Done():
		a.leave()
		return nil, context.Cause(ctx)
	}
	if a.refused != nil {
		a.leave()
		return nil, a.refused
	}
	return a, nil
}

// bring fetches a blob into the store.
func (c *Cache) bring(ctx context.Context, a *arrival, key, repository string, d digest.Digest) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer a.leave()
	var id string
	var body io.ReadCloser
	id, body, a.refused = c.open(ctx, a, repository, d)
	close(a.opened)
	err := a.refused
	if err == nil {
		err = c.receive(a, repository, id, d, body)
	}
	c.mu.Lock()
	delete(c.arriving, key)
	c.mu.Unlock()
	a.end(err)
}

// open asks the other registry and makes the upload that takes its answer.
func (c *Cache) open(ctx context.Context, a *arrival, repository string, d digest.Digest) (id string, body io.ReadCloser, err error) {
	layer, err := c.puller.Layer(ctx, c.registry.Repo(repository).Digest(d.String()))
	if err != nil {
		return "", nil, blobError(err)
	}
	if a.total, err = layer.Size(); err != nil {
		return "", nil, blobError(err)
	}
	if body, err = layer.Compressed(); err != nil {
		return "", nil, blobError(err)
	}
	if id, err = c.store.Begin(repository); err == nil {
		a.file, err = c.store.Partial(repository, id)
	}
	if err != nil {
		body.Close()
	}
	return id, body, err
}

func blobError(err error) error {
	if err = upstream(err); errors.Is(err, store.ErrManifestUnknown) {
		return store.ErrBlobUnknown
	}
	return err
}

// receive writes the blob to the store.
func (c *Cache) receive(a *arrival, repository, id string, d digest.Digest, body io.ReadCloser) error {
	defer body.Close()
	size, err := c.store.Append(repository, id, -1, &counter{body, a})
	c.received.Add(float64(size))
	if err == nil {
		err = c.store.Commit(repository, id, d)
	} else {
		_ = c.store.Cancel(repository, id) // it may be gone already
	}
	if err != nil {
		c.log.Warn("fetch", "repository", repository, "digest", d, "error", err)
	}
	return err
}

// counter tells the readers how much has come: what one Read returned is in the file when the next one is called.
type counter struct {
	io.Reader
	a *arrival
}

func (c *counter) Read(p []byte) (int, error) {
	c.a.mu.Lock()
	c.a.grown.Broadcast()
	c.a.mu.Unlock()
	return c.Reader.Read(p)
}

func (a *arrival) end(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done, a.err = true, err
	a.grown.Broadcast()
}

// join reports whether there is still something to wait for.
func (a *arrival) join() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.readers == 0 {
		return false
	}
	a.readers++
	return true
}

func (a *arrival) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.readers--; a.readers == 0 && a.file != nil {
		a.file.Close()
	}
}

// reader reads what has come, and waits for more.
type reader struct {
	a  *arrival
	at int64
}

func (r *reader) Read(p []byte) (int, error) {
	r.a.mu.Lock()
	defer r.a.mu.Unlock()
	for {
		n, err := r.a.file.ReadAt(p, r.at)
		switch {
		case n > 0:
			r.at += int64(n)
			return n, nil
		case err != nil && !errors.Is(err, io.EOF):
			return 0, err
		case r.a.done && r.a.err != nil:
			return 0, fault.New(fault.Unavailable, "fetch: %w", r.a.err)
		case r.a.done:
			return 0, io.EOF
		}
		r.a.grown.Wait()
	}
}
