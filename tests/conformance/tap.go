package main

import (
	"regexp"
	"strconv"
	"strings"
)

// tap is what a TAP stream says.
type tap struct {
	Planned               int // -1: there is no plan
	Held, Failed, Skipped int // skipped ones are among those that held
	Stray                 int // errors that belong to no check: some programs say in this way that they failed
}

func (t tap) complete() bool { return t.Planned == t.Held+t.Failed }

var (
	plan  = regexp.MustCompile(`^1\.\.(\d+)`)
	check = regexp.MustCompile(`^(not )?ok\b`)
	skip  = regexp.MustCompile(`(?i)# *skip`)
	stray = regexp.MustCompile(`^\s+"error":`)
)

// parseTAP reads a stream. Lines that are indented belong to the check before them. A program that
// prints the streams of several containers has several plans, which add up.
func parseTAP(out []byte) tap {
	t := tap{Planned: -1}
	for line := range strings.Lines(string(out)) {
		if m := plan.FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				continue // more checks than there are numbers
			}
			t.Planned = max(t.Planned, 0) + n
		}
		m := check.FindStringSubmatch(line)
		switch {
		case m == nil && t.Held+t.Failed == 0 && stray.MatchString(line):
			t.Stray++
		case m == nil:
		case m[1] != "":
			t.Failed++
		default:
			t.Held++
			if skip.MatchString(line) {
				t.Skipped++
			}
		}
	}
	return t
}
