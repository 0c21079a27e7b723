package image

import (
	"context"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// claims are the layers that one operation is about to make. Another one that needs the same layer at the same
// time waits, instead of fetching and unpacking it too. Layers are claimed from the lowest on, and who
// holds one waits only for lower ones: nobody waits for himself.
type claims struct {
	mu   sync.Mutex
	mine []digest.Digest
}

// take returns whether the layer is there. If not, it is the caller's to make, until drop or end.
func (c *claims) take(ctx context.Context, s *Store, chain digest.Digest) (there bool, err error) {
	for {
		s.mu.Lock()
		other, busy := s.claimed[chain]
		// Asked under the lock: who claimed it before has made it by now, or given up.
		if _, err := s.o.Layers.Get(chain); err == nil {
			s.mu.Unlock()
			return true, nil
		}
		if !busy {
			s.claimed[chain] = make(chan struct{})
			s.mu.Unlock()
			c.mu.Lock()
			c.mine = append(c.mine, chain)
			c.mu.Unlock()
			return false, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// drop gives a claim back; of a layer that is not claimed it does nothing.
func (c *claims) drop(s *Store, chain digest.Digest) {
	c.mu.Lock()
	i := slices.Index(c.mine, chain)
	if i >= 0 {
		c.mine = slices.Delete(c.mine, i, i+1)
	}
	c.mu.Unlock()
	if i < 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.claimed[chain])
	delete(s.claimed, chain)
}

// end gives all claims back. Nobody takes any more.
func (c *claims) end(s *Store) {
	for _, chain := range slices.Clone(c.mine) {
		c.drop(s, chain)
	}
}
