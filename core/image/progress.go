package image

import (
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/wire"
)

// reporter passes messages of several goroutines on, one at a time.
type reporter struct {
	mu   sync.Mutex
	send func(wire.Message)
}

func newReporter(send func(wire.Message)) *reporter {
	if send == nil {
		send = func(wire.Message) {}
	}
	return &reporter{send: send}
}

func (r *reporter) say(m wire.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.send(m)
}

// state tells the state of one layer, in the form of Docker's: with an empty detail.
func (r *reporter) state(id, status string) {
	r.say(wire.Message{ID: id, Status: status, ProgressDetail: &wire.Progress{}})
}

// often is how often a bar moves; a terminal shows no more.
const often = 100 * time.Millisecond

// bar tells how far the bytes of one layer have come.
type bar struct {
	r       *reporter
	id      string
	status  string
	total   int64
	current int64
	told    time.Time
}

func (r *reporter) bar(id, status string, total int64) *bar {
	return &bar{r: r, id: id, status: status, total: total}
}

func (b *bar) add(n int) {
	b.current += int64(n)
	if now := time.Now(); b.current == b.total && n > 0 || now.Sub(b.told) >= often {
		b.told = now
		b.r.say(wire.Message{ID: b.id, Status: b.status, ProgressDetail: &wire.Progress{Current: b.current, Total: b.total}})
	}
}
