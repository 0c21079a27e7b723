package cli

import (
	"errors"
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
