package cli

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/core/wire"
)

// Progress returns a printer for the messages of pull, push, load, import and build: on a terminal a
// line per layer that is written over, elsewhere the states alone, without the bars.
func Progress(out *Out) func(wire.Message) error {
	p := &progress{out: out, lines: map[string]int{}}
	return p.print
}

type progress struct {
	out   *Out
	lines map[string]int // by layer: which line, counted from the first of the block
}

func (p *progress) print(m wire.Message) error {
	if m.Aux != nil && m.Status == "" && m.Stream == "" {
		return nil
	}
	if !p.out.IsTerminal() {
		return p.plain(m)
	}
	if m.ID == "" || m.Stream != "" {
		clear(p.lines) // what comes without an ID ends the block; an ID that comes again begins a new one
		return p.plain(m)
	}
	var b strings.Builder
	line, known := p.lines[m.ID]
	if !known {
		line = len(p.lines)
		p.lines[m.ID] = line
		b.WriteByte('\n')
	}
	// The cursor rests below the block.
	up := len(p.lines) - line
	fmt.Fprintf(&b, "\x1b[%dA\r\x1b[2K%s", up, p.text(m))
	fmt.Fprintf(&b, "\x1b[%dB\r", up)
	_, err := p.out.Write([]byte(b.String()))
	return err
}

// plain prints one line, and nothing for a mere advance.
func (p *progress) plain(m wire.Message) error {
	text := m.Stream
	if text == "" {
		if d := m.ProgressDetail; d != nil && (d.Current > 0 || d.Total > 0) && !p.out.IsTerminal() {
			return nil
		}
		text = p.text(m) + "\n"
	}
	_, err := p.out.Write([]byte(text))
	return err
}

func (p *progress) text(m wire.Message) string {
	var b strings.Builder
	if m.ID != "" {
		b.WriteString(Printable(m.ID) + ": ")
	}
	b.WriteString(Printable(m.Status))
	if bar := p.bar(m.ProgressDetail); bar != "" {
		b.WriteString(" " + bar)
	}
	return b.String()
}

// bar draws [====>    ]  1.2MB/3.4MB; narrow terminals get the numbers alone.
func (p *progress) bar(d *wire.Progress) string {
	if d == nil || d.Current <= 0 && d.Total <= 0 {
		return ""
	}
	count := func(n int64) string {
		if d.Units != "" {
			return fmt.Sprintf("%d %s", n, d.Units)
		}
		return units.HumanSize(float64(n))
	}
	if d.Total <= 0 {
		return fmt.Sprintf("%8v", count(d.Current))
	}
	numbers := fmt.Sprintf("%8v/%v", count(min(d.Current, d.Total)), count(d.Total))
	if d.Current > d.Total {
		numbers = fmt.Sprintf("%8v", count(d.Current)) // the total was wrong
	}
	if d.HideCounts {
		numbers = ""
	}
	if _, width := p.out.Size(); width <= 110 {
		return numbers
	}
	const cells = 50
	done := int(min(d.Current, d.Total) * cells / d.Total)
	return fmt.Sprintf("[%s>%s] %s", strings.Repeat("=", done), strings.Repeat(" ", cells-done), numbers)
}
