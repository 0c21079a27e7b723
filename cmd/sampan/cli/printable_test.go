package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/wire"
)

// hostile is what an image may have where people look: it clears the screen, sets the title, writes backwards, goes back.
const hostile = "a\x1b[2J\x1b]0;title\x07\u009b31m\u202eb\x7f\x9bc\b\r"

func TestPrintable(t *testing.T) {
	for given, want := range map[string]string{
		"": "", "plain text": "plain text", "tab\tline\n": "tab\tline\n", "ü 舢板": "ü 舢板",
		hostile: `a\x1b[2J\x1b]0;title\x07\u009b31m\u202eb\x7f\x9bc\x08\x0d`,
	} {
		if got := Printable(given); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}

// What comes from an image is shown, not obeyed: in tables, templates, inspections, errors and progress.
func TestHostileTextIsShown(t *testing.T) {
	harmless := func(name, got string) {
		t.Helper()
		if strings.ContainsAny(got, "\x1b\x07\u009b\u202e\x7f\b\r") || strings.Contains(got, "\x9bc") || !strings.Contains(got, "title") {
			t.Errorf("%s: %q", name, got)
		}
	}
	rows := []struct{ Name string }{{hostile}}
	list := Listing[struct{ Name string }]{Columns: []Column[struct{ Name string }]{
		{Head: "NAME", Value: func(r struct{ Name string }) string { return r.Name }},
		{Head: "AGAIN", Value: func(r struct{ Name string }) string { return r.Name }},
	}, Headers: Headers{"Name": "NAME"}, Key: "Name"}
	var b bytes.Buffer
	if err := list.Write(&b, "", rows); err != nil {
		t.Fatal(err)
	}
	harmless("columns", b.String())
	b.Reset()
	if err := list.Write(&b, "table {{.Name}}", rows); err != nil {
		t.Fatal(err)
	}
	harmless("table", b.String())
	b.Reset()
	if err := Table(&b, 10, [][]string{{hostile, "x"}}); err != nil {
		t.Fatal(err)
	}
	harmless("rows", b.String())
	harmless("error", Message(errors.New(hostile)))
	p := progress{out: &Out{}}
	harmless("progress", p.text(wire.Message{ID: hostile, Status: hostile}))

	// A program gets a template's text as it is, a person does not.
	b.Reset()
	if err := list.Write(&b, "{{.Name}}", rows); err != nil {
		t.Fatal(err)
	}
	if b.String() != hostile+"\n" {
		t.Errorf("a program gets %q", b.String())
	}
	for name, write := range map[string]func(out *person) error{
		"template": func(out *person) error { return list.Write(out, "{{.Name}}", rows) },
		"one":      func(out *person) error { return One(out, "{{.Name}}", rows[0]) },
		"JSON":     func(out *person) error { return One(out, "json", rows[0]) },
	} {
		var out person
		if err := write(&out); err != nil {
			t.Fatal(err)
		}
		harmless(name, out.String())
	}
}

// person reads a terminal.
type person struct{ bytes.Buffer }

func (*person) IsTerminal() bool { return true }
