package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

// big is a swarm of 10 nodes and 20 services with 50 tasks each.
func big(b *testing.B, settled bool) *world {
	w := newWorld(b)
	for i := range 10 {
		w.node(fmt.Sprintf("node%d", i), nil)
	}
	for i := range 20 {
		w.create(spec(fmt.Sprintf("service%d", i), 50, constrained("node.role==worker"), publishes(anyPort(80))))
	}
	if settled {
		w.settle()
	}
	return w
}

func (w *world) measure(b *testing.B, fn func(store.Writer)) {
	if err := w.Update(context.Background(), func(tx store.Writer) error {
		b.StartTimer()
		fn(tx)
		b.StopTimer()
		return errAway
	}); !errors.Is(err, errAway) {
		b.Fatal(err)
	}
}

var errAway = errors.New("nothing of this is kept")

// BenchmarkStepAtRest looks at 1,000 tasks on 10 nodes of which nothing has to be changed.
func BenchmarkStepAtRest(b *testing.B) {
	w := big(b, true)
	b.StopTimer()
	b.ResetTimer()
	for range b.N {
		w.measure(b, func(tx store.Writer) { Step(tx, w.now, Options{}) })
	}
}

// BenchmarkStepFromNothing makes and places 1,000 tasks.
func BenchmarkStepFromNothing(b *testing.B) {
	w := big(b, false)
	n := 0
	b.StopTimer()
	b.ResetTimer()
	for range b.N {
		w.measure(b, func(tx store.Writer) {
			Step(tx, w.now, Options{NewID: func() string { n++; return fmt.Sprintf("task%09d", n) }})
		})
	}
}

// BenchmarkStepUpdate exchanges 1,000 tasks at once.
func BenchmarkStepUpdate(b *testing.B) {
	w := big(b, true)
	for i := range 20 {
		w.change(fmt.Sprintf("service%d", i), image(2), updates(wire.UpdateConfig{Parallelism: 0}))
	}
	n := w.ids
	b.StopTimer()
	b.ResetTimer()
	for range b.N {
		w.measure(b, func(tx store.Writer) {
			Step(tx, w.now, Options{NewID: func() string { n++; return fmt.Sprintf("task%09d", n) }})
		})
	}
}
