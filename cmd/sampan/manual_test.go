package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/manual"
)

// TestManual writes every page and has them read by what is there to read them.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	if err := manual.Write(newRoot(cli.New(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})), dir); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 100 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "sampan-container-run.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		".TH \"SAMPAN-CONTAINER-RUN\" 1 ", "\n\\fBsampan container run [OPTIONS] IMAGE [COMMAND] [ARG...]\\fR\n",
		"\n.TP\n\\fB\\-d\\fR, \\fB\\-\\-detach\\fR\n", "\n.SH ALIASES\nsampan container run, sampan run\n", "\n.BR sampan\\-container (1)\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("sampan-container-run.1 has no %q", want)
		}
	}
	table, err := os.ReadFile(filepath.Join(dir, "sampan-concepts.7"))
	if err != nil || !strings.Contains(string(table), "\nKernel             the host's") {
		t.Errorf("sampan-concepts.7: %v\n%s", err, table)
	}
	topics, err := filepath.Glob(filepath.Join(dir, "*.7"))
	if err != nil || len(topics) < 2 {
		t.Errorf("%d pages of topics, %v", len(topics), err)
	}
	pages = append(pages, topics...)
	for _, reader := range [][]string{{"mandoc", "-Tlint", "-Wwarning"}, {"groff", "-man", "-Tutf8", "-ww", "-z"}} {
		program, err := exec.LookPath(reader[0])
		if err != nil {
			continue // the machine has no such reader
		}
		if out, err := exec.CommandContext(t.Context(), program, append(reader[1:], pages...)...).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", reader[0], err, out[:min(len(out), 2000)])
		}
	}
}
