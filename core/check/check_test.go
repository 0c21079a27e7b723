package check

import (
	"context"
	"errors"
	"testing"
)

func TestLookKeepsWhatStays(t *testing.T) {
	pause = 0
	n := 0
	room := func(context.Context) ([]Finding, error) {
		n++
		list := []Finding{{Kind: "volume", Subject: "stays", Problem: "broken"}}
		if n == 1 {
			list = append(list, Finding{Kind: "volume", Subject: "goes", Problem: "half"})
		} else {
			list = append(list, Finding{Kind: "volume", Subject: "comes", Problem: "half"})
		}
		return list, nil
	}
	found, err := Look(t.Context(), room)
	if err != nil || len(found) != 1 || found[0].Subject != "stays" {
		t.Errorf("found %v, %v", found, err)
	}
	if n != looks {
		t.Errorf("looked %d times, expected %d", n, looks)
	}
	broken := errors.New("no disk")
	if _, err := Look(t.Context(), room, func(context.Context) ([]Finding, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}
