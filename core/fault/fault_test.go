package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestClassOf(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want Class
	}{
		{"finds the class below wrapping", fmt.Errorf("create: %w", New(NotFound, "no such thing")), NotFound},
		{"takes the outer of two", As(Conflict, New(NotFound, "x")), Conflict},
		{"calls a field error invalid", fmt.Errorf("--memory: %w", &Field{Field: "a"}), Invalid},
		{"knows cancellation", fmt.Errorf("pull: %w", context.Canceled), Canceled},
		{"knows deadlines", context.DeadlineExceeded, Deadline},
		{"calls the rest internal", io.EOF, Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ClassOf(c.err); got != c.want {
				t.Errorf("ClassOf(%v) = %v, want %v", c.err, got, c.want)
			}
		})
	}
}

func TestAsKeepsTheChain(t *testing.T) {
	if err := As(Unavailable, fmt.Errorf("read: %w", io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != "read: unexpected EOF" {
		t.Errorf("As lost the chain: %v", err)
	}
	if As(Internal, nil) != nil {
		t.Error("As(c, nil) is not nil")
	}
}

func TestFieldReadsAsOneLine(t *testing.T) {
	err := &Field{Field: "--memory", Given: "2x", Expected: "a size such as 512m or 2g"}
	if got, want := err.Error(), `--memory "2x": expected a size such as 512m or 2g`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	err.Nearest = "2g"
	if got, want := err.Error(), `--memory "2x": expected a size such as 512m or 2g (did you mean "2g"?)`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNearest(t *testing.T) {
	candidates := []string{"memory", "memory-swap", "mtu", "network", "name", "logs"}
	for given, want := range map[string]string{
		"memmory": "memory", "mut": "mtu", "networkk": "network", "Memory": "memory", "zzz": "", "": "", "nmae": "name", "bogus": "", "netwrk": "network", "nettwrok": "network", //nolint:misspell // meant
	} {
		if got := Nearest(given, candidates); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", given, got, want)
		}
	}
}
