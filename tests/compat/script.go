// Package compat compares our daemon with Debian's dockerd, as the stock docker client shows them.
//
// Each file of testdata is a list of commands of a shell, one a line, that are run against both,
// each side in a directory of its own. Exit status, standard output and standard error must be the same
// after normalise.go has taken out what no two engines have in common: ids, times, pids. JSON is
// compared by paths and values. A file begins with a comment that is its title; other lines are
//
//	# ...                    a comment
//	differs REASON           the next command's outcome differs, and must; @NAME is a reason by its name
//	ignore REGEXP: REASON    in this file, lines of both that match are not compared; must be of use
//	norm REGEXP => TEXT      in this file, what matches is replaced in the output of both; a line that
//	                         becomes empty is left out
//	short                    this file is one of those that make test runs; the others need make compat
//	unordered                the lines of the next command's output may come in any order
//
// The file "everywhere" has ignore and norm lines for all files, and the reasons that have a name, as
// "reason NAME TEXT". The reasons make docs/compatibility.md
// (page.go). Commands have docker and two words beside it:
//
//	api METHOD PATH [BODY]   a raw request; prints the answer's body, and its status and type
//	eventually COMMAND...    repeat until it succeeds, for ten seconds
//	registry                 start a registry on the engine's 127.0.0.1:5000; kill $(cat registry.pid) ends it
package compat

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// script is a file of testdata.
type script struct {
	name, title string
	short       bool
	steps       []*step
	ignores     []*ignore
	norms       []norm
	reasons     map[string]string // by name
}

// step is one command.
type step struct {
	line      int
	command   string
	differs   string // the reason
	unordered bool
}

// ignore is a kind of line that is not compared.
type ignore struct {
	pattern *regexp.Regexp
	reason  string
	used    bool
}

// norm is a replacement.
type norm struct {
	pattern *regexp.Regexp
	text    string
}

// load reads the scripts of a directory, and the rules for all of them.
func load(dir string) (scripts []*script, everywhere *script, err error) {
	if everywhere, err = read(filepath.Join(dir, "everywhere")); err != nil {
		return nil, nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, nil, err
	}
	for _, path := range paths {
		s, err := read(path)
		if err == nil {
			err = s.resolve(everywhere.reasons)
		}
		if err != nil {
			return nil, nil, err
		}
		scripts = append(scripts, s)
	}
	return scripts, everywhere, nil
}

// resolve replaces the names of reasons with their texts.
func (s *script) resolve(reasons map[string]string) error {
	for _, step := range s.steps {
		name, ok := strings.CutPrefix(step.differs, "@")
		if !ok {
			continue
		}
		if step.differs, ok = reasons[name]; !ok {
			return fmt.Errorf("%s.txt:%d: reason @%s is not in the file everywhere", s.name, step.line, name)
		}
	}
	return nil
}

func read(path string) (*script, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &script{reasons: map[string]string{}, name: strings.TrimSuffix(filepath.Base(path), ".txt")}
	next := &step{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		if err := s.line(strings.TrimSpace(lines.Text()), &next, n); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	if next.differs != "" || next.unordered {
		return nil, fmt.Errorf("%s: the last line announces a command, and none follows", path)
	}
	return s, lines.Err()
}

func (s *script) line(line string, next **step, n int) error {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "":
	case "#":
		if s.title == "" {
			s.title = rest
		}
	case "differs":
		(*next).differs = rest
	case "reason":
		name, text, _ := strings.Cut(rest, " ")
		s.reasons[name] = text
	case "short":
		s.short = true
	case "unordered":
		(*next).unordered = true
	case "ignore":
		pattern, reason, ok := strings.Cut(rest, ": ")
		re, err := regexp.Compile(pattern)
		if err != nil || !ok {
			return fmt.Errorf("%q: expected ignore REGEXP: REASON (%w)", line, err)
		}
		s.ignores = append(s.ignores, &ignore{pattern: re, reason: reason})
	case "norm":
		pattern, text, ok := strings.Cut(rest+" ", " => ")
		re, err := regexp.Compile(pattern)
		if err != nil || !ok {
			return fmt.Errorf("%q: expected norm REGEXP => TEXT (%w)", line, err)
		}
		s.norms = append(s.norms, norm{pattern: re, text: strings.TrimSpace(text)})
	default:
		(*next).line, (*next).command = n, line
		s.steps = append(s.steps, *next)
		*next = &step{}
	}
	return nil
}
