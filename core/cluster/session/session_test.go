package session

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
)

func task(id, image string) Task {
	t := Task{Task: wire.Task{ID: id}}
	if image != "" {
		t.Spec.ContainerSpec = &wire.ContainerSpec{Image: image, Env: []string{"TEXT=" + strings.Repeat("a", 10_000)}}
	}
	return t
}

// Tasks of one specification are told it once, and have it all when they are there.
func TestPack(t *testing.T) {
	list := func() []Task {
		return []Task{task("1", "a"), task("2", "b"), task("3", ""), task("4", "a"), task("5", "a")}
	}
	w := Wanted{Tasks: list()}
	if err := w.Pack(); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 25_000 || len(w.Specs) != 3 {
		t.Errorf("it has %d bytes and %d specifications", len(text), len(w.Specs))
	}
	var got Wanted
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if err := got.Unpack(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(list(), got.Tasks); diff != "" || got.Specs != nil {
		t.Error(diff, got.Specs)
	}
}

func TestUnpackRefuses(t *testing.T) {
	for _, n := range []int{-1, 0, 2} {
		w := Wanted{Tasks: []Task{{SpecOf: n}}, Specs: make([]wire.TaskSpec, 1)}
		if err := w.Unpack(); err == nil || !strings.Contains(err.Error(), "expected one of the 1") {
			t.Errorf("specification %d: %v", n, err)
		}
	}
}
