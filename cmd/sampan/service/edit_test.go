package service

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEditCapabilities(t *testing.T) {
	type lists struct{ add, drop []string }
	tests := []struct{ have, given, want lists }{
		{lists{}, lists{[]string{"net_admin", "CAP_KILL"}, []string{"chown"}}, lists{[]string{"CAP_KILL", "CAP_NET_ADMIN"}, []string{"CAP_CHOWN"}}},
		// What was dropped is taken back before it is added, and the other way round.
		{lists{nil, []string{"CAP_KILL"}}, lists{[]string{"kill"}, nil}, lists{}},
		{lists{[]string{"CAP_KILL"}, nil}, lists{nil, []string{"kill"}}, lists{}},
		// Adding goes before dropping.
		{lists{}, lists{[]string{"kill"}, []string{"kill"}}, lists{[]string{"CAP_KILL"}, nil}},
		{lists{[]string{"CAP_KILL"}, []string{"CAP_CHOWN"}}, lists{[]string{"reset"}, []string{"reset"}}, lists{}},
		{lists{[]string{"CAP_KILL"}, []string{"CAP_CHOWN"}}, lists{[]string{"all"}, nil}, lists{[]string{"ALL"}, []string{"CAP_CHOWN"}}},
	}
	for _, tt := range tests {
		add, drop := editCapabilities(tt.have.add, tt.have.drop, tt.given.add, tt.given.drop)
		if len(add) == 0 {
			add = nil
		}
		if len(drop) == 0 {
			drop = nil
		}
		if diff := cmp.Diff(tt.want, lists{add, drop}, cmp.AllowUnexported(lists{})); diff != "" {
			t.Errorf("%v %v: %s", tt.have, tt.given, diff)
		}
	}
}

func TestEditHosts(t *testing.T) {
	have := []string{"127.0.0.2 host3 host1 host2 host4", "127.0.0.1 host1 host4", "127.0.0.3 host1", "127.0.0.1 host1", "broken"}
	tests := []struct{ remove, add, want []string }{
		{[]string{"host1"}, nil, []string{"127.0.0.2 host3 host2 host4", "127.0.0.1 host4"}},
		{[]string{"host1:127.0.0.1"}, nil, []string{"127.0.0.2 host3 host1 host2 host4", "127.0.0.1 host4", "127.0.0.3 host1"}},
		{[]string{"host1", "host2", "host3", "host4"}, []string{"a:::1", "b:10.0.0.1", "a:::1"}, []string{"::1 a", "10.0.0.1 b"}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, editHosts(have, tt.remove, tt.add)); diff != "" {
			t.Errorf("%v: %s", tt.remove, diff)
		}
	}
}

func TestEditPairs(t *testing.T) {
	have := []string{"A=1", "B=2", "C"}
	if diff := cmp.Diff([]string{"A=9", "C=3", "D="}, editPairs(have, []string{"B"}, []string{"A=9", "D=", "C=3"})); diff != "" {
		t.Error(diff)
	}
	if have[1] != "B=2" {
		t.Error("what the daemon sent is changed")
	}
}

func TestEditGeneric(t *testing.T) {
	have := []any{map[string]any{"DiscreteResourceSpec": map[string]any{"Kind": "gpu", "Value": 2.0}}, map[string]any{"NamedResourceSpec": map[string]any{"Kind": "x"}}}
	got, err := editGeneric(have, []string{"gpu"}, []string{"a=1", "b=2"})
	if diff := cmp.Diff([]any{have[1], generic{&discrete{"a", 1}}, generic{&discrete{"b", 2}}}, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for _, tt := range []struct{ remove, add []string }{{[]string{"nothing"}, nil}, {nil, []string{"a=b"}}, {nil, []string{"=1"}}, {nil, []string{"a"}}, {nil, []string{"a=-1"}}, {nil, []string{"a=1", "a=2"}}} {
		if _, err := editGeneric(have, tt.remove, tt.add); err == nil {
			t.Errorf("%v is accepted", tt)
		}
	}
}
