package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The page must not name tests that are gone.
func TestScenariosNameTests(t *testing.T) {
	list, err := parseScenarios(runcScenarios)
	if err != nil {
		t.Fatal(err)
	}
	function := regexp.MustCompile(`^([a-z/-]+)\.(Test\w+)`)
	source := map[string]string{}
	for _, s := range list {
		if !s.covered() {
			continue
		}
		for one := range strings.FieldsFuncSeq(s.test, func(r rune) bool { return r == ',' || r == ';' || r == ' ' }) {
			m := function.FindStringSubmatch(one)
			if m == nil {
				continue
			}
			if source[m[1]] == "" {
				files, err := filepath.Glob(filepath.Join("../..", m[1], "*_test.go"))
				if err != nil {
					t.Fatal(err)
				}
				for _, file := range files {
					text, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					source[m[1]] += string(text)
				}
			}
			if !strings.Contains(source[m[1]], "func "+m[2]+"(") {
				t.Errorf("%s: %s: there is no test %s in %s", s.file, s.behaviour, m[2], m[1])
			}
		}
		if function.FindString(s.test) == "" {
			t.Errorf("%s: %s: %q names no test", s.file, s.behaviour, s.test)
		}
	}
}
