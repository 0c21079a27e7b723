// Package check is the vocabulary of `sampan system check`: what a room found to be inconsistent, and
// how it is mended.
//
// A room has a method Check that compares what it knows with what there is on disk and in the kernel,
// and changes nothing. It is called while others use the room: what an operation in progress has made
// may look like something that nobody knows. Look therefore looks again, and keeps what stays.
package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Kind    string // "volume", "layer", ...
	Subject string // which one
	Problem string // "its directory is missing"
	// Mend sets it right without losing anything, and may be called when it is right already. nil: it
	// cannot, and Advice says what a person can do.
	Mend   func(context.Context) error
	Did    string // what Mend does, as a past participle: "made the directory"
	Advice string
}

// Room is a Check of a room.
type Room func(context.Context) ([]Finding, error)

// looks and pause: an operation has this long to finish what looks like half of something.
const looks = 4

// pause is a variable for tests.
var pause = 250 * time.Millisecond

// Look asks all rooms and returns what they find each time. It returns what it has found also with an
// error.
func Look(ctx context.Context, rooms ...Room) ([]Finding, error) {
	var found []Finding
	var err error
	for i := range looks {
		if i > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return found, ctx.Err()
			}
		}
		var now []Finding
		if now, err = once(ctx, rooms); i > 0 {
			now = slices.DeleteFunc(now, func(f Finding) bool { return !slices.ContainsFunc(found, f.same) })
		}
		found = now
		if len(found) == 0 {
			break
		}
	}
	return found, err
}

func (f Finding) same(g Finding) bool {
	return f.Kind == g.Kind && f.Subject == g.Subject && f.Problem == g.Problem
}

func once(ctx context.Context, rooms []Room) (found []Finding, err error) {
	var errs []error
	for _, room := range rooms {
		list, err := room(ctx)
		found = append(found, list...)
		errs = append(errs, err)
	}
	return found, errors.Join(errs...)
}

// String is the finding in one line.
func (f Finding) String() string { return fmt.Sprintf("%s %s: %s", f.Kind, f.Subject, f.Problem) }
