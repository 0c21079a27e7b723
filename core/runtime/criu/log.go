package criu

import (
	"bufio"
	"io"
	"os"
	"strings"
)

// Cause is the line of a log of CRIU's that tells why something failed; "" when none does.
func Cause(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	return telling(f)
}

// Errors that do not tell why: those of what CRIU tries at its start and does without, and the
// last ones, which say no more than that it failed.
var beside = []string{
	"rlimit: Can't setup RLIMIT_NOFILE", "tun: Unable to create tun", "Dumping FAILED", "Pre-dumping FAILED", "Restoring FAILED", "failed with -1",
	"Can't recv request", "Can't read request",
}

// telling finds the first error that is not beside the point: those after it follow from it. When there
// is none but such, it is the last of them.
func telling(r io.Reader) (line string) {
	s := bufio.NewScanner(io.LimitReader(r, 256<<20))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		_, text, found := strings.Cut(s.Text(), "Error (")
		if !found {
			continue
		}
		// (00.042649)      1: Error (criu/util.c:1534): text
		if _, after, ok := strings.Cut(text, "): "); ok {
			text = after
		}
		line = strings.TrimSpace(text)
		if !isBeside(line) {
			break
		}
	}
	return line
}

func isBeside(line string) bool {
	for _, b := range beside {
		if strings.Contains(line, b) {
			return true
		}
	}
	return false
}
