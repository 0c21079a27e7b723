package wire

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func summaries() []ContainerSummary {
	return []ContainerSummary{
		{ID: "a1", Names: []string{"/web"}, Image: "busybox", ImageID: "sha256:1", Command: "sleep 1", Created: 1795269874, State: "running", Status: "Up 4 seconds"},
		{
			ID: "b2", Names: []string{"/db", "/web/db"}, Command: "sh -c 'echo \"\\ é\x01\u2028<&>\"'", Created: -1, SizeRw: 5, SizeRootFs: 7,
			Ports: []Port{{PrivatePort: 80, Type: "tcp"}, {IP: "::", PrivatePort: 65535, PublicPort: 8080, Type: "udp"}},
		},
		{},
	}
}

// TestBrief checks that the brief form is read as package json reads it, and quickly.
func TestBrief(t *testing.T) {
	for n := range len(summaries()) + 1 {
		list := summaries()[:n]
		text := AppendBrief(nil, list)
		var want []ContainerSummary
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for i := range want { // which has an empty list where there is no element
			want[i].Names, want[i].Ports = list[i].Names, list[i].Ports
		}
		if diff := cmp.Diff(list, want); diff != "" {
			t.Errorf("package json (-given +read):\n%s", diff)
		}
		for _, end := range []string{"", "\n"} {
			got, ok := parseBrief(string(text) + end)
			if diff := cmp.Diff(list, got); diff != "" || !ok {
				t.Errorf("in %s (%v, -given +read):\n%s", text, ok, diff)
			}
		}
	}
}

// TestParseSummaries reads what is not in the brief form, or broken.
func TestParseSummaries(t *testing.T) {
	whole := summaries()
	whole[0].Labels = map[string]string{"a": "b"}
	text, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSummaries(text)
	if diff := cmp.Diff(whole, got); diff != "" || err != nil {
		t.Errorf("another daemon's answer: %v\n%s", err, diff)
	}
	brief := string(AppendBrief(nil, summaries()))
	for n := range len(brief) {
		if list, err := ParseSummaries([]byte(brief[:n])); err == nil {
			t.Fatalf("%s: what was cut off is read as %v", brief[:n], list)
		}
	}
	for _, bad := range []string{
		brief + "x", brief + brief, strings.Replace(brief, "65535", "65536", 1), strings.Replace(brief, "1795269874", "-", 1), strings.Replace(brief, "sleep", "\x01", 1),
	} {
		if _, ok := parseBrief(bad); ok {
			t.Errorf("%s: expected an error", bad)
		}
		if list, err := ParseSummaries([]byte(bad)); err == nil {
			t.Errorf("%s: read as %v, expected an error", bad, list)
		}
	}
}

func FuzzParseSummaries(f *testing.F) {
	f.Add(string(AppendBrief(nil, summaries())))
	f.Add(`[{"Id":"","Names":[""],"Image":"\`)
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := parseBrief(text)
		if !ok {
			return
		}
		var want []ContainerSummary
		if err := json.Unmarshal([]byte(text), &want); err != nil || len(want) != len(got) {
			t.Errorf("%q: read as %v, by package json as %v, %v", text, got, want, err)
		}
	})
}
