package diag

import (
	"regexp"
	"sync"
)

// Pattern is a regular expression that is compiled when it is first used: most runs of the program
// evaluate no script, and should not pay for the patterns of scripts.
func Pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
