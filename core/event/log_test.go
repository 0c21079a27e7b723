package event

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
)

func TestPublishFillsIn(t *testing.T) {
	l := NewLog()
	l.now = func() time.Time { return time.Unix(7, 5) }
	l.Emit(Container, "start", "c1", map[string]string{"image": "nginx:1"})
	l.Emit(Image, "pull", "i1", nil)
	l.Emit(Volume, "create", "v1", nil)
	l.Publish(wire.Event{Type: Daemon, Action: "reload", TimeNano: 9_000_000_001, Scope: "swarm"})
	attributes := map[string]string{}
	want := []wire.Event{
		{Status: "start", ID: "c1", From: "nginx:1", Type: Container, Action: "start", Scope: "local", Time: 7, TimeNano: 7_000_000_005,
			Actor: wire.EventActor{ID: "c1", Attributes: map[string]string{"image": "nginx:1"}}},
		{Status: "pull", ID: "i1", Type: Image, Action: "pull", Scope: "local", Time: 7, TimeNano: 7_000_000_005, Actor: wire.EventActor{ID: "i1", Attributes: attributes}},
		{Type: Volume, Action: "create", Scope: "local", Time: 7, TimeNano: 7_000_000_005, Actor: wire.EventActor{ID: "v1", Attributes: attributes}},
		{Type: Daemon, Action: "reload", Scope: "swarm", Time: 9, TimeNano: 9_000_000_001},
	}
	if diff := cmp.Diff(want, l.past); diff != "" {
		t.Error(diff)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	l := NewLog()
	for i := range history + 10 {
		l.Emit(Daemon, fmt.Sprint(i), "d", nil)
	}
	got, err := l.Subscribe(t.Context(), time.Unix(1, 0), time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	list := actions(got)
	if len(list) != history || list[0] != "10" || list[history-1] != fmt.Sprint(history+9) {
		t.Errorf("%d events, %s to %s", len(list), list[0], list[len(list)-1])
	}
}

// What is asked for is the past between the two moments; without since or until there is none.
func TestPastIsCutOut(t *testing.T) {
	l := NewLog()
	for i := range int64(5) {
		l.Publish(wire.Event{Type: Daemon, Action: fmt.Sprint(i), TimeNano: (i + 10) * int64(time.Second)})
	}
	at := func(s int64) time.Time { return time.Unix(10+s, 0) }
	for _, c := range []struct {
		since, until time.Time
		want         []string
	}{
		{at(1), at(3), []string{"1", "2", "3"}}, {at(4), at(9), []string{"4"}}, {at(5), at(9), nil}, {time.Time{}, at(1), []string{"0", "1"}},
	} {
		got, err := l.Subscribe(t.Context(), c.since, c.until, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, actions(got)); diff != "" {
			t.Errorf("%v to %v: %s", c.since, c.until, diff)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	got, err := l.Subscribe(ctx, time.Time{}, time.Time{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.Emit(Daemon, "new", "d", nil)
	cancel()
	if diff := cmp.Diff([]string{"new"}, actions(got)); diff != "" {
		t.Errorf("without moments: %s", diff)
	}
}

// A subscription ends with its context or at its moment, and is counted for so long.
func TestSubscriptionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog()
		ctx, cancel := context.WithCancel(t.Context())
		canceled, err := l.Subscribe(ctx, time.Time{}, time.Time{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		timed, err := l.Subscribe(t.Context(), time.Now(), time.Now().Add(time.Minute), map[string][]string{"type": {Image}})
		if err != nil {
			t.Fatal(err)
		}
		l.Emit(Image, "pull", "i", nil)
		if n := l.Subscribers(); n != 2 {
			t.Errorf("%d subscribers, want 2", n)
		}
		cancel()
		if diff := cmp.Diff([]string{"pull"}, actions(canceled)); diff != "" {
			t.Error(diff)
		}
		time.Sleep(59 * time.Second)
		l.Emit(Image, "tag", "i", nil)
		l.Emit(Network, "create", "n", nil)
		time.Sleep(2 * time.Second)
		l.Emit(Image, "delete", "i", nil)
		if diff := cmp.Diff([]string{"pull", "tag"}, actions(timed)); diff != "" {
			t.Error(diff)
		}
		if n := l.Subscribers(); n != 0 {
			t.Errorf("%d subscribers at the end", n)
		}
	})
}

// Those who publish at once are seen in one order by everybody, and nobody's event is lost or comes
// twice to one who subscribes meanwhile.
func TestManyPublishers(t *testing.T) {
	l := NewLog()
	const publishers, each = 8, history / 8
	first, err := l.Subscribe(t.Context(), time.Unix(1, 0), time.Time{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			for i := range each {
				l.Emit(Daemon, fmt.Sprint(p, "-", i), "d", nil)
			}
		})
	}
	second, err := l.Subscribe(t.Context(), time.Unix(1, 0), time.Time{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	all.Wait()
	take := func(c <-chan wire.Event) (list []string) {
		for range publishers * each {
			list = append(list, (<-c).Action)
		}
		return list
	}
	if diff := cmp.Diff(take(first), take(second)); diff != "" {
		t.Error(diff)
	}
}

func TestRepository(t *testing.T) {
	for name, want := range map[string]string{
		"nginx:1": "nginx", "nginx": "nginx", "host:5000/a": "host:5000/a", "host:5000/a:b": "host:5000/a", "": "",
	} {
		if got := repository(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}
