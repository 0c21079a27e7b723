package cluster

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/sampan-project/sampan/core/cluster/agent"
	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/wire"
)

// A node that does not know itself for a moment must not be told as one that has nothing: the swarm would take its tasks
// away.
func TestDescribeFails(t *testing.T) {
	a := agent.New(agent.Options{NodeID: "n", Info: func(context.Context) (wire.Info, error) { return wire.Info{}, errors.New("not now") }})
	t.Cleanup(func() { _ = a.Close() }) // it never fails
	p := &member{log: slog.New(slog.DiscardHandler), who: identity.NewHolder(nil), agent: a}
	if d := p.describe(t.Context()); d != nil {
		t.Errorf("it is told as %+v", d)
	}
}
