package cluster

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/wire"
)

func TestDetailed(t *testing.T) {
	task := &wire.Task{ID: "t", NodeID: "n", ServiceID: "s"}
	const whose = "com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t"
	for _, c := range []struct {
		line    string
		stamped bool
		want    string
	}{
		{" hello world\n", false, whose + " hello world\n"},
		{"a=b hello\n", false, "a=b," + whose + " hello\n"},
		{"2026-01-01T00:00:00Z  hello\n", true, "2026-01-01T00:00:00Z " + whose + " hello\n"},
		{"2026-01-01T00:00:00Z a=b,c=d hello\n", true, "2026-01-01T00:00:00Z a=b,c=d," + whose + " hello\n"},
	} {
		if got := string(detailed(task, []byte(c.line), c.stamped)); got != c.want {
			t.Errorf("%q: got %q, want %q", c.line, got, c.want)
		}
	}
}

func frame(stream byte, text string) string {
	g := gathering{}
	return string(g.framed(stream, []byte(text)))
}

func TestFrames(t *testing.T) {
	for _, c := range []struct {
		what, stream string
		want         []string
		err          string
	}{
		{"nothing", "", nil, ""},
		{"two lines", frame(1, "one\n") + frame(2, ""), []string{frame(1, "one\n"), frame(2, "")}, ""},
		{"half a header", frame(1, "one\n") + "\x01\x00", []string{frame(1, "one\n")}, "unexpected EOF"},
		{"half a line", frame(1, "one\n")[:10], nil, "unexpected EOF"},
		{"a header without its line", frame(1, "one\n")[:8], nil, "EOF"},
		{"a line of four gigabytes", "\x01\x00\x00\x00\xff\xff\xff\xff", nil, "4294967295 bytes"},
	} {
		var got []string
		err := frames(strings.NewReader(c.stream), func(f []byte) error {
			got = append(got, string(f))
			return nil
		})
		if !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v; want %q, %s", c.what, got, err, c.want, c.err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte(frame(1, "one\n") + frame(2, "two\n")))
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, stream []byte) {
		var all []byte
		_ = frames(bytes.NewReader(stream), func(frame []byte) error { // what is wrong is refused
			all = append(all, frame...)
			return nil
		})
		if !bytes.HasPrefix(stream, all) {
			t.Errorf("made %q of %q", all, stream)
		}
	})
}

func TestFind(t *testing.T) {
	nodes := []*wire.Node{{ID: "abc1"}, {ID: "abd2"}, {ID: "xyz3"}, {ID: "name"}}
	for i, name := range []string{"one", "two", "two", "one-and-more"} {
		nodes[i].Description.Hostname = name
	}
	for ref, want := range map[string]string{
		"abc1": "abc1", "abd": "abd2", "one": "abc1", "name": "name", "ab": "ambiguous (2 matches", "two": "ambiguous (2 matches", "nobody": "not found", "": "not named",
	} {
		got, err := find("node", ref, nodes, nodeID, nodeName)
		if err == nil && got.ID != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("find(%q) = %v, %v; want %s", ref, got, err, want)
		}
	}
}

func TestForwarded(t *testing.T) {
	for path, want := range map[string]bool{
		"/v1.50/services": true, "/nodes/x/update": true, "/v1.41/tasks/x/logs": true, "/swarm": true, "/swarm/update": true,
		"/v1.50/containers/json": false, "/swarms": false, "/v1.50/images/create": false, "/sampan/v1/x": false, "/info": false, "//containers/services": false,
	} {
		if got := forwarded.MatchString(path); got != want {
			t.Errorf("%s: %t", path, got)
		}
	}
}
