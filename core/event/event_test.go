package event

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func actions(c <-chan wire.Event) (list []string) {
	for e := range c {
		list = append(list, e.Action)
	}
	return list
}

func TestSubscribe(t *testing.T) {
	l := NewLog()
	begin := time.Now()
	l.Emit(Container, "create", "c1", map[string]string{"name": "web", "image": "nginx:1", "tier": "front"})
	l.Emit(Container, "exec_create: sh", "c1", map[string]string{"name": "web", "image": "nginx:1"})
	l.Emit(Image, "pull", "sha256:abc", map[string]string{"name": "nginx:1"})
	l.Emit(Network, "connect", "n1", map[string]string{"container": "c1", "name": "back"})
	for _, c := range []struct {
		filters map[string][]string
		want    []string
	}{
		{nil, []string{"create", "exec_create: sh", "pull", "connect"}},
		{map[string][]string{"type": {"image", "network"}}, []string{"pull", "connect"}},
		{map[string][]string{"event": {"exec_create"}}, []string{"exec_create: sh"}},
		{map[string][]string{"container": {"web"}, "type": {"container"}}, []string{"create", "exec_create: sh"}},
		{map[string][]string{"label": {"tier=front"}}, []string{"create"}},
		{map[string][]string{"image": {"nginx"}}, []string{"create", "exec_create: sh", "pull"}},
		{map[string][]string{"secret": {"x"}}, nil},
	} {
		got, err := l.Subscribe(t.Context(), begin, time.Now(), c.filters)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, actions(got)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.filters, diff)
		}
	}
	if _, err := l.Subscribe(t.Context(), begin, time.Now(), map[string][]string{"tpye": {"x"}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("unknown filter: %v", err)
	}
}

func TestSlowSubscriberIsCutOff(t *testing.T) {
	l := NewLog()
	slow, err := l.Subscribe(t.Context(), time.Time{}, time.Time{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range queue + 2 {
		l.Emit(Daemon, fmt.Sprint(i), "d", nil)
	}
	if n := len(actions(slow)); n != queue {
		t.Errorf("%d events before the end, want %d", n, queue)
	}
	if n := l.Subscribers(); n != 0 {
		t.Errorf("%d subscribers, want none", n)
	}
}
