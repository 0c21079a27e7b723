package images

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The page about hostile images must not name tests that are gone, and each attack has one.
func TestPageNamesTests(t *testing.T) {
	page, err := os.ReadFile("../../docs/hostile-images.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`([a-z-]+(?:/[a-z-]+)+)\.((?:Test|Fuzz)\w+)`)
	source := map[string]string{}
	found := named.FindAllStringSubmatch(string(page), -1)
	if len(found) < 100 {
		t.Errorf("the page names %d tests", len(found))
	}
	for _, m := range found {
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
			t.Errorf("there is no test %s in %s", m[2], m[1])
		}
	}
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| attack ") && !named.MatchString(line) {
			t.Errorf("no test: %s", line)
		}
	}
}
