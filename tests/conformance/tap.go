package main

import (
	"regexp"
	"strconv"
	"strings"
)

// tap is what a TAP stream says.
type tap struct {
	planned               int // -1: there is no plan
	held, failed, skipped int // skipped ones are among those that held
	stray                 int // errors that belong to no check: some programs say in this way that they failed
}

func (t tap) complete() bool { return t.planned == t.held+t.failed }

var (
	plan  = regexp.MustCompile(`^1\.\.(\d+)`)
	check = regexp.MustCompile(`^(not )?ok\b`)
	skip  = regexp.MustCompile(`(?i)# *skip`)
	stray = regexp.MustCompile(`^\s+"error":`)
)

// parseTAP reads a stream. Lines that are indented belong to the check before them. A program that
// prints the streams of several containers has several plans, which add up.
func parseTAP(out []byte) tap {
	t := tap{planned: -1}
	for line := range strings.Lines(string(out)) {
		if m := plan.FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				continue // more checks than there are numbers
			}
			t.planned = max(t.planned, 0) + n
		}
		m := check.FindStringSubmatch(line)
		switch {
		case m == nil && t.held+t.failed == 0 && stray.MatchString(line):
			t.stray++
		case m == nil:
		case m[1] != "":
			t.failed++
		default:
			t.held++
			if skip.MatchString(line) {
				t.skipped++
			}
		}
	}
	return t
}
