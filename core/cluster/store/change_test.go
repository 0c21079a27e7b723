package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// clock is a time that goes on by a second each time it is looked at.
func clock() func() time.Time {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return func() time.Time {
		at = at.Add(time.Second)
		return at
	}
}

// changed makes a change of m that must be possible.
func changed(t *testing.T, m *Memory, fn func(Writer)) {
	t.Helper()
	if err := m.Update(t.Context(), func(w Writer) error { fn(w); return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryKeepsWhatIsPut(t *testing.T) {
	m := NewMemory(clock())
	changed(t, m, func(w Writer) {
		w.PutCluster(&Cluster{SwarmInfo: wire.SwarmInfo{ID: "swarm"}, RootKey: []byte("key")})
		w.PutNode(&wire.Node{ID: "n1"})
		w.PutService(&wire.Service{ID: "s1", Spec: wire.ServiceSpec{Annotations: wire.Annotations{Name: "web"}}})
		w.PutAuth("s1", "secret")
		w.PutTask(&wire.Task{ID: "t1", ServiceID: "s1"})
		if w.Task("t1") == nil || len(w.TasksOf("s1")) != 1 || len(w.TasksOn("")) != 1 || w.Auth("s1") != "secret" {
			t.Error("an Update does not see what it has put")
		}
	})
	r := m.Reader()
	if r.Cluster() == nil || string(r.Cluster().RootKey) != "key" || r.Node("n1") == nil || r.Service("s1") == nil || r.ServiceNamed("web") == nil || r.Auth("s1") != "secret" {
		t.Fatalf("what was put is not there: %+v", r)
	}
	want := wire.ObjectMeta{Version: wire.ObjectVersion{Index: 1}, CreatedAt: clock()(), UpdatedAt: clock()()}
	if diff := cmp.Diff(want, r.Task("t1").ObjectMeta); diff != "" {
		t.Error(diff)
	}
	changed(t, m, func(w Writer) { // moves
		task := *w.Task("t1")
		task.NodeID = "n1"
		w.PutTask(&task)
	})
	if len(r.TasksOn("n1")) != 0 || len(r.TasksOn("")) != 1 {
		t.Error("a Reader has changed")
	}
	r = m.Reader()
	if len(r.TasksOn("n1")) != 1 || len(r.TasksOn("")) != 0 || len(r.TasksOf("s1")) != 1 {
		t.Error("a task that moved is not where it is")
	}
	if got := r.Task("t1"); got.Version.Index != 2 || !got.UpdatedAt.After(got.CreatedAt) || r.Index() != 2 {
		t.Errorf("versions: %+v, state %d", got.ObjectMeta, r.Index())
	}
	changed(t, m, func(w Writer) {
		w.DeleteService("s1")
		w.DeleteTask("t1")
		w.DeleteNode("n1")
		w.DeleteNode("never")
	})
	r = m.Reader()
	if r.Auth("s1") != "" || len(r.Services())+len(r.Tasks())+len(r.Nodes())+len(r.TasksOf("s1"))+len(r.TasksOn("n1")) != 0 {
		t.Error("what was deleted is there")
	}
}

func TestListsAreOrdered(t *testing.T) {
	m := NewMemory(clock())
	before := time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC)
	changed(t, m, func(w Writer) { w.PutTask(&wire.Task{ID: "c", NodeID: "n"}) })
	changed(t, m, func(w Writer) {
		w.PutTask(&wire.Task{ID: "b", NodeID: "n"})
		w.PutTask(&wire.Task{ID: "a", NodeID: "n"})
		w.PutTask(&wire.Task{ID: "z", NodeID: "nn"})
		w.PutTask(&wire.Task{ID: "y", NodeID: "n", ObjectMeta: wire.ObjectMeta{CreatedAt: before}})
	})
	ids := func(list []*wire.Task) (s string) {
		for _, task := range list {
			s += task.ID
		}
		return s
	}
	if got := ids(m.Reader().Tasks()); got != "ycabz" {
		t.Errorf("Tasks: %s", got)
	}
	if got := ids(m.Reader().TasksOn("n")); got != "ycab" {
		t.Errorf("TasksOn: %s", got)
	}
}

func TestWhatDoesNotChangeIsNoChange(t *testing.T) {
	m := NewMemory(clock())
	changed(t, m, func(w Writer) { w.PutNode(&wire.Node{ID: "n1"}) })
	woken := m.Changed()
	changed(t, m, func(w Writer) {
		w.PutNode(&wire.Node{ID: "n1"}) // without the times that the store gave it
		w.PutTask(&wire.Task{ID: "t"})
		w.DeleteTask("t")
		n := *w.Node("n1")
		n.Status.State = wire.NodeDown
		w.PutNode(&n)
		n.Status.State = ""
		w.PutNode(&n)
	})
	if m.Reader().Index() != 1 {
		t.Errorf("the state has changed to %d", m.Reader().Index())
	}
	select {
	case <-woken:
		t.Error("who waits was woken")
	default:
	}
	changed(t, m, func(w Writer) { w.DeleteNode("n1") })
	select {
	case <-woken:
	default:
		t.Error("who waits was not woken")
	}
}

func TestUpdateIsWholeOrNotAtAll(t *testing.T) {
	for name, c := range map[string]struct {
		fn   func(Writer) error
		want string
	}{
		"an error of the caller": {func(Writer) error { return errors.New("no") }, "no"},
		"no ID":                  {func(w Writer) error { w.PutNode(&wire.Node{}); return nil }, `node.ID "": expected 1 to 128 bytes of UTF-8 without a NUL`},
		"a NUL":                  {func(w Writer) error { w.PutTask(&wire.Task{ID: "a\x00b"}); return nil }, `task.ID "a\x00b": expected 1 to 128 bytes of UTF-8 without a NUL`},
		"no UTF-8":               {func(w Writer) error { w.PutAuth("\xff", "x"); return nil }, `auth.ID "\xff": expected`},
		"a NUL in an owner":      {func(w Writer) error { w.PutTask(&wire.Task{ID: "a", NodeID: "\x00"}); return nil }, `task "\x00": expected IDs of its service and node in UTF-8 without a NUL`},
		"nothing":                {func(w Writer) error { w.PutService(nil); return nil }, `service "": expected an object`},
		"no JSON": {func(w Writer) error {
			w.PutNode(&wire.Node{ID: "n", ObjectMeta: wire.ObjectMeta{CreatedAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}})
			return nil
		}, "node n: json"},
		"a large object": {func(w Writer) error { w.PutAuth("s", strings.Repeat("x", MaxObject)); return nil }, `auth s "2097154 bytes": expected at most 2097152 bytes of JSON`},
		"a large change": {func(w Writer) error {
			for i := range 5 {
				w.PutAuth(fmt.Sprint("s", i), strings.Repeat("x", MaxObject-2))
			}
			if !w.Full() {
				return errors.New("it is not Full")
			}
			return nil
		}, "expected at most 8388608 bytes: change less at once"},
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMemory(clock())
			err := m.Update(t.Context(), func(w Writer) error {
				w.PutNode(&wire.Node{ID: "first"})
				return c.fn(w)
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %s", err, c.want)
			}
			if c.want != "no" && !fault.Is(err, fault.Invalid) {
				t.Errorf("class is %v", fault.ClassOf(err))
			}
			if m.Reader().Node("first") != nil {
				t.Error("a part of it is there")
			}
		})
	}
}

func TestMemoryPanicsWhenAnObjectIsChangedInPlace(t *testing.T) {
	m := NewMemory(clock())
	changed(t, m, func(w Writer) { w.PutNode(&wire.Node{ID: "n"}) })
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "node n was changed in place") {
			t.Errorf("panic is %v", p)
		}
	}()
	changed(t, m, func(w Writer) { w.Node("n").Spec.Role = wire.RoleManager })
}

func TestApplyRefusesWhatItDoesNotKnow(t *testing.T) {
	node := `{"ID":"n","Version":{},"CreatedAt":"2026-01-01T00:00:00Z","UpdatedAt":"2026-01-01T00:00:00Z","Spec":{"Labels":null},"Description":{"Platform":{},"Resources":{},"Engine":{},"TLSInfo":{}},"Status":{}}`
	entry := func(rows string) string {
		return `{"format":1,"base":0,"time":"2026-01-01T00:00:00Z","rows":[` + rows + `]}`
	}
	if _, err := apply(newState(), 1, []byte(entry(`{"kind":"node","id":"n","object":`+node+`}`))); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ entry, want string }{
		"nothing":             {``, "unexpected end"},
		"no JSON":             {"\x00\x01", "invalid character"},
		"a newer format":      {`{"format":2,"rows":{}}`, "entry 1 of the swarm's log: it has format 2, and this version of Sampan reads format 1 only"},
		"an unknown field":    {`{"format":1,"rows":[],"lease":5}`, `unknown field "lease"`},
		"more behind it":      {entry("") + "{}", "invalid character"},
		"an unknown kind":     {entry(`{"kind":"volume","id":"v","object":{}}`), `kind "volume", which this version of Sampan does not know`},
		"the end of one":      {entry(`{"kind":"volume","id":"v"}`), `kind "volume", which this version of Sampan does not know`},
		"a field of a object": {entry(`{"kind":"node","id":"n","object":{"ID":"n","Colour":"red"}}`), `node n: json: unknown field "Colour"`},
		"another type":        {entry(`{"kind":"auth","id":"s","object":{}}`), "auth s: json: cannot unmarshal"},
		"another ID":          {entry(`{"kind":"node","id":"m","object":` + node + `}`), `node m: its own ID is "n"`},
		"no object":           {entry(`{"kind":"node","id":"m","object":null}`), `node m`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := apply(newState(), 1, []byte(c.entry))
			if err == nil || errors.Is(err, errStale) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %s", err, c.want)
			}
			if s.index != 0 || len(s.rows()) != 0 {
				t.Error("a part of it is there")
			}
		})
	}
	if _, err := apply(newState(), 9, []byte(strings.Replace(entry(""), `"base":0`, `"base":3`, 1))); !errors.Is(err, errStale) {
		t.Errorf("an entry of another state: %v", err)
	}
}

func FuzzApply(f *testing.F) {
	d := newDraft(newState(), clock()())
	d.PutNode(&wire.Node{ID: "n"})
	d.PutAuth("s", "x")
	entry, err := d.entry()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(entry)
	f.Add([]byte(`{"format":1,"rows":[{"kind":"task","id":""}]}`))
	f.Fuzz(func(t *testing.T, entry []byte) {
		one, err := apply(newState(), 1, entry)
		two, again := apply(newState(), 1, slices.Clone(entry))
		if (err == nil) != (again == nil) || dump(t, one) != dump(t, two) {
			t.Error("the same entry has two outcomes")
		}
	})
}

// dump is a state as a snapshot has it.
func dump(t *testing.T, s state) string {
	t.Helper()
	var b strings.Builder
	if err := (snapshot{s}).write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSnapshotIsReadAsItWasWritten(t *testing.T) {
	m := NewMemory(clock())
	changed(t, m, func(w Writer) {
		w.PutCluster(&Cluster{SwarmInfo: wire.SwarmInfo{ID: "swarm"}, Removed: []Former{{ID: "x", Until: time.Unix(1, 0).UTC()}}})
		for i := range 20 {
			w.PutNode(&wire.Node{ID: fmt.Sprint("n", i)})
			w.PutTask(&wire.Task{ID: fmt.Sprint("t", i), NodeID: fmt.Sprint("n", i), ServiceID: "s"})
		}
		w.PutService(&wire.Service{ID: "s"})
		w.PutAuth("s", "<&>\n")
	})
	was := dump(t, *m.current())
	s, err := readSnapshot(strings.NewReader(was))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(was, dump(t, s)); diff != "" {
		t.Error(diff)
	}
	if len(s.TasksOn("n3")) != 1 || len(s.TasksOf("s")) != 20 || s.Auth("s") != "<&>\n" {
		t.Error("its indexes are not those of the state")
	}
	lines := strings.SplitAfter(was, "\n")
	for name, c := range map[string]struct{ text, want string }{
		"empty":              {"", "unexpected EOF"},
		"cut off":            {was[:len(was)/2], "object"},
		"without its last":   {strings.Join(lines[:len(lines)-2], ""), "unexpected EOF"},
		"with one more":      {was + lines[len(lines)-2], "there is more behind its last object"},
		"of a newer version": {strings.Replace(was, `"format":1`, `"format":7`, 1), "it has format 7"},
		"with a new kind":    {strings.Replace(was, `"kind":"auth"`, `"kind":"oath"`, 1), `kind "oath"`},
		"without an object":  {strings.Replace(was, `"object":`, `"objekt":`, 1), `unknown field "objekt"`},
	} {
		if _, err := readSnapshot(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want %s", name, err, c.want)
		}
	}
}
