package build

import (
	"context"
	"sync"

	"github.com/sampan-project/sampan/core/image"
)

// flights are the steps that run now, by key. Builds that need an equal step at the same time wait
// for the one execution and see all of its output.
type flights struct {
	cleaned bool // see tempDir

	mu      sync.Mutex
	running map[string]*flight
}

type flight struct {
	log     *stepLog
	waiters int
	cancel  context.CancelFunc
	done    chan struct{}
	image   *image.Image
	err     error
}

// do runs fn, or waits for the one that runs, and copies its output to line. The execution goes on
// as long as one build waits for it. The build that began it waits for its end in any case: its
// files are in use until then.
func (f *flights) do(ctx context.Context, key string, line *stepLine, fn func(context.Context, *stepLog) (*image.Image, error)) (*image.Image, error) {
	fl, mine := f.board(ctx, key, fn)
	line.follow(ctx, fl.log)
	if ctx.Err() != nil {
		f.leave(fl)
		if mine {
			<-fl.done
		}
		return nil, context.Cause(ctx)
	}
	<-fl.done
	return fl.image, fl.err
}

// board returns the flight of a key and whether it was begun by this call. One that everybody has left
// is not joined: it is about to end without a result.
func (f *flights) board(ctx context.Context, key string, fn func(context.Context, *stepLog) (*image.Image, error)) (*flight, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl, ok := f.running[key]; ok && fl.waiters > 0 {
		fl.waiters++
		return fl, false
	}
	flying, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fl := &flight{log: newStepLog(), waiters: 1, cancel: cancel, done: make(chan struct{})}
	f.running[key] = fl
	go func() {
		defer cancel()
		fl.image, fl.err = fn(flying, fl.log)
		f.mu.Lock()
		if f.running[key] == fl {
			delete(f.running, key)
		}
		f.mu.Unlock()
		fl.log.close()
		close(fl.done)
	}()
	return fl, true
}

// leave cancels the flight when nobody waits for it any more.
func (f *flights) leave(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.waiters--; fl.waiters == 0 {
		fl.cancel()
	}
}
