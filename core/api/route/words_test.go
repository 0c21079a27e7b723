package route

import (
	"errors"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	long := strings.Repeat("ü", maxWords)
	for given, want := range map[string]string{
		"plain": "plain", "two\nlines\tand a tab": "two\nlines\tand a tab", "a\x1b[2J\u009b\x7fb\r": "a[2Jb", long: long[:maxWords] + "...",
	} {
		if got := Words(errors.New(given)); got != want {
			t.Errorf("%.40q: got %.40q (%d bytes)", given, got, len(got))
		}
	}
}
