package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// full is a disk without room.
type full struct{}

var errFull = errors.New("no space left on device")

func (full) Write([]byte) (int, error) { return 0, errFull }

// What cannot be written is an error, whatever the form.
func TestOutputErrorsAreTold(t *testing.T) {
	type row struct{ Name string }
	l := Listing[row]{Columns: []Column[row]{{Head: "NAME", Value: func(r row) string { return r.Name }}}, Headers: Headers{"Name": "NAME"}}
	for _, format := range []string{"", "table", "json", "{{.Name}}", "table {{.Name}}"} {
		if err := l.Write(full{}, format, []row{{"a"}, {"b"}}); !errors.Is(err, errFull) {
			t.Errorf("%q: got %v", format, err)
		}
	}
	if err := Table(full{}, 10, [][]string{{"a", "b"}}); !errors.Is(err, errFull) {
		t.Errorf("table: got %v", err)
	}
}

// TestColumns checks that a table is as text/tabwriter has it, also where cells have its characters.
func TestColumns(t *testing.T) {
	type row [3]string
	l := Listing[row]{}
	for i, head := range []string{"NAME", "STATUS", "IT"} {
		l.Columns = append(l.Columns, Column[row]{Head: head, Value: func(r row) string { return r[i] }})
	}
	for _, rows := range [][]row{
		nil,
		{{"a", "b", "c"}},
		{{"", "", ""}, {"a name that is long", "…", "é"}},
		{{"short", strings.Repeat("ä", 20), ""}, {"\xfe", "x", "y"}},
		{{"a\tb", "c", "d"}, {"e", "f\ng", "h"}, {"i", "j", "k\v\f"}},
	} {
		lines := bytes.NewBufferString("NAME\tSTATUS\tIT\n")
		for _, r := range rows {
			lines.WriteString(strings.Join(r[:], "\t") + "\n")
		}
		var want, got bytes.Buffer
		if err := errors.Join(align(&want, lines), l.Write(&got, "", rows)); err != nil {
			t.Fatal(err)
		}
		if want.String() != got.String() {
			t.Errorf("%q:\n%q\nexpected\n%q", rows, got.String(), want.String())
		}
	}
}
