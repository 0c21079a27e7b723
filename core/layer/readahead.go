package layer

import (
	"context"
	"io"
	"sync"
)

// readAheadReader reads its source in a goroutine of its own, a few blocks ahead of its reader.
type readAheadReader struct {
	full  chan block
	empty chan []byte
	quit  chan struct{}
	done  sync.WaitGroup
	once  sync.Once
	now   block // what is being read from
	rest  []byte
}

type block struct {
	buf []byte
	n   int
	err error
}

const (
	readAheadBlocks = 8
	readAheadSize   = 128 << 10
)

func readAhead(ctx context.Context, r io.Reader) *readAheadReader {
	a := &readAheadReader{full: make(chan block, readAheadBlocks), empty: make(chan []byte, readAheadBlocks), quit: make(chan struct{})}
	for range readAheadBlocks {
		a.empty <- nil // made when first needed: most layers are small
	}
	a.done.Go(func() { a.fill(ctx, r) })
	return a
}

func (a *readAheadReader) fill(ctx context.Context, r io.Reader) {
	for {
		var b block
		select {
		case b.buf = <-a.empty:
		case <-a.quit:
			return
		}
		if b.err = ctx.Err(); b.err == nil {
			if b.buf == nil {
				b.buf = make([]byte, readAheadSize)
			}
			for b.n < len(b.buf) && b.err == nil {
				var n int
				n, b.err = r.Read(b.buf[b.n:])
				b.n += n
			}
		}
		select {
		case a.full <- b:
		case <-a.quit:
			return
		}
		if b.err != nil {
			return
		}
	}
}

// Read hands out what was read ahead.
func (a *readAheadReader) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.buf != nil {
			a.empty <- a.now.buf
		}
		a.now = <-a.full
		a.rest = a.now.buf[:a.now.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// stop ends the goroutine and waits for it; the source is not used after it.
func (a *readAheadReader) stop() {
	a.once.Do(func() { close(a.quit) })
	a.done.Wait()
}
