package registry

import (
	"context"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An image that a mirror had is the same at its registry: a blob has one content wherever it lies. So what a mirror
// does not bring to its end goes on behind it, at the next mirror or the registry, from where it is.

// mirrorBreaks is how often a mirror may break off a blob that the place behind it may have.
const mirrorBreaks = 2

// place is where an image's blobs may be, too. It is spoken to only when it is needed.
type place struct {
	endpoint
	repo *repository
}

// current returns the number of the place that blobs are asked for at: 0 is where the image was found.
func (i *Image) current() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.now
}

// place connects to a place of the image.
func (i *Image) place(ctx context.Context, n int) (*repository, error) {
	if n == 0 {
		return i.repo, nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	p := &i.behind[n-1]
	if p.repo == nil {
		repo, err := i.client.connect(ctx, i.repo.named, p.endpoint, transport.PullScope)
		if err != nil {
			return nil, err
		}
		p.repo = repo
	}
	return p.repo, nil
}

// Leave has the blobs asked for behind the mirror that they come from, because what it sends is not what it should;
// false is that there is nobody behind it.
func (i *Image) Leave(ctx context.Context) bool {
	for n := i.current() + 1; n <= len(i.behind); n++ {
		if _, err := i.place(ctx, n); err == nil {
			i.settle(n)
			return true
		}
	}
	return false
}

// settle has further blobs asked for at a place at once.
func (i *Image) settle(n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n > i.now {
		i.client.log.Info("registry mirror is left", "mirror", i.endpointOf(i.now).host, "image", i.Name, "for", i.endpointOf(n).host)
		i.now = n
	}
}

func (i *Image) endpointOf(n int) endpoint {
	if n == 0 {
		return i.repo.endpoint
	}
	return i.behind[n-1].endpoint
}

// elsewhere opens the rest of the blob behind the mirror that it came from.
func (b *blob) elsewhere() bool {
	from := b.repo
	for n := b.place + 1; n <= len(b.image.behind); n++ {
		repo, err := b.image.place(b.ctx, n)
		if err == nil {
			b.repo = repo
			err = b.open()
		}
		if err == nil {
			b.place, b.breaks, b.broken, b.wait = n, 0, 0, repo.wait
			b.image.settle(n)
			return true
		}
		b.shut()
		b.image.client.log.Info("registry has not the blob that its mirror broke off", "registry", b.image.endpointOf(n).host, "blob", b.want.Digest, "error", err)
	}
	b.repo = from
	return false
}

// again reads a blob once more from behind the mirror whose bytes were not the blob's.
func (i *Image) again(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, bool) {
	if !i.Leave(ctx) {
		return nil, false
	}
	content, err := i.ReadBlob(ctx, d, limit)
	return content, err == nil
}
