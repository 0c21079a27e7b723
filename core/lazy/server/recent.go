package server

import (
	"container/list"
	"sync"
)

// recent keeps the parts of files that were read last: the kernel asks for a part piece by piece.
type recent struct {
	limit int

	mu    sync.Mutex
	size  int
	order *list.List // of *recentPart, the last used first
	parts map[partKey]*list.Element
}

type partKey struct {
	layer         *layer
	offset, inner int64
}

type recentPart struct {
	key  partKey
	data []byte
}

func newRecent(limit int) *recent {
	return &recent{limit: limit, order: list.New(), parts: map[partKey]*list.Element{}}
}

func (r *recent) get(k partKey) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.parts[k]
	if !ok {
		return nil, false
	}
	r.order.MoveToFront(e)
	return e.Value.(*recentPart).data, true
}

func (r *recent) put(k partKey, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.parts[k]; ok || len(data) > r.limit {
		return
	}
	r.parts[k] = r.order.PushFront(&recentPart{k, data})
	for r.size += len(data); r.size > r.limit; {
		r.removeElement(r.order.Back())
	}
}

func (r *recent) removeElement(e *list.Element) {
	p := r.order.Remove(e).(*recentPart)
	delete(r.parts, p.key)
	r.size -= len(p.data)
}

// forget drops the parts of a layer.
func (r *recent) forget(l *layer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, e := range r.parts {
		if k.layer == l {
			r.removeElement(e)
		}
	}
}
