package netns

import (
	"log/slog"
	"os"
	"sync"
	"time"
)

// idle is how long the pool waits after a Take before it makes the next namespace. Making one takes
// a lock that the start of the container which was just served needs as well; a container is
// started in less.
const idle = 5 * time.Millisecond

// Pool keeps namespaces ready, because making one costs half a millisecond that nobody should wait for.
type Pool struct {
	ready  chan *os.File
	wanted chan struct{}
	log    *slog.Logger
	stop   chan struct{}
	ended  sync.WaitGroup
}

// NewPool returns a pool that keeps size namespaces ready.
func NewPool(size int, log *slog.Logger) *Pool {
	p := &Pool{
		ready:  make(chan *os.File, size),
		wanted: make(chan struct{}, 1),
		log:    log,
		stop:   make(chan struct{}),
	}
	p.wanted <- struct{}{}
	p.ended.Go(p.refill)
	return p
}

// Take returns a namespace that nobody else has: a prepared one, or one made now.
func (p *Pool) Take() (*os.File, error) {
	defer func() {
		select {
		case p.wanted <- struct{}{}:
		default:
		}
	}()
	select {
	case f := <-p.ready:
		return f, nil
	default:
		return Create()
	}
}

// Close ends the pool and gives up what is ready.
func (p *Pool) Close() {
	close(p.stop)
	p.ended.Wait()
	for {
		select {
		case f := <-p.ready:
			f.Close()
		default:
			return
		}
	}
}

func (p *Pool) refill() {
	for {
		select {
		case <-p.stop:
			return
		case <-p.wanted:
		}
		for len(p.ready) < cap(p.ready) {
			select {
			case <-p.stop:
				return
			case <-time.After(idle):
			}
			f, err := Create()
			if err != nil {
				// Take will meet the same error and has somebody to tell.
				p.log.Warn("cannot prepare a network namespace", "error", err)
				break
			}
			p.ready <- f
		}
	}
}
