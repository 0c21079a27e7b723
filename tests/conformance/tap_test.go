package main

import "testing"

func TestParseTAP(t *testing.T) {
	for _, test := range []struct {
		name, in string
		want     tap
		complete bool
	}{
		{"plan last", "TAP version 13\nok 1 - a\nnot ok 2 - b\n1..2\n", tap{2, 1, 1, 0, 0}, true},
		{"plan first", "1..1\nok 1 # SKIP no such thing\n", tap{1, 1, 0, 1, 0}, true},
		{"diagnostic", "1..1\nok 1 - a\n  ---\n  not ok: this\n  ...\n# not ok\n", tap{1, 1, 0, 0, 0}, true},
		{"two streams", "1..1\nok 1\n1..2\nok 1\nok 2\n", tap{3, 3, 0, 0, 0}, true},
		{"cut off", "TAP version 13\nok 1 - a\n", tap{-1, 1, 0, 0, 0}, false},
		{"no checks", "TAP version 13\n1..0\n", tap{0, 0, 0, 0, 0}, true},
		{"an error of no check", "TAP version 13\n  {\n    \"error\": \"x\"\n  }\n1..0\n", tap{0, 0, 0, 0, 1}, true},
		{"an error of a check", "ok 1\n  {\n    \"error\": \"x\"\n  }\n1..1\n", tap{1, 1, 0, 0, 0}, true},
		{"a word", "okay\n1..0\n", tap{0, 0, 0, 0, 0}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := parseTAP([]byte(test.in))
			if got != test.want || got.complete() != test.complete {
				t.Errorf("got %+v, complete %v; want %+v, %v", got, got.complete(), test.want, test.complete)
			}
		})
	}
}

// The causes are for programs that are named once, and the file can be read.
func TestCauses(t *testing.T) {
	if _, err := parseCauses(causesFile); err != nil {
		t.Error(err)
	}
	if _, err := parseCauses("a\tx\na\ty\n"); err == nil {
		t.Error("a program that is named twice: expected an error")
	}
}
