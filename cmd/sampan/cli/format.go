package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode/utf8"

	"github.com/sampan-project/sampan/core/fault"
)

// FormatHelp describes --format of a list.
const FormatHelp = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template`

// InspectFormatHelp describes --format of what is no list.
const InspectFormatHelp = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template`

// Column is one column of the table that a list prints without --format.
type Column[T any] struct {
	Head  string
	Value func(T) string
}

// Headers are the headings of "table TEMPLATE", by field name.
type Headers map[string]string

// Label is the heading of {{.Label "com.example.some-name"}}: SOME NAME becomes of its last part.
func (Headers) Label(name string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.NewReplacer("-", " ", "_", " ").Replace(last)
}

// Listing is how a kind of thing is listed. Row types have their fields in alphabetical order, because
// that is the order of Docker's JSON.
type Listing[T any] struct {
	Columns []Column[T]
	Headers Headers
	Key     string // the field that --quiet prints alone
	RawKey  string // what --format raw calls it
	Raw     string // the template that is --format raw
}

// List is Write, or with quiet the key of each row alone. Another template than "table" and "raw" goes
// before quiet.
func (l Listing[T]) List(out io.Writer, format string, quiet bool, rows []T) error {
	if quiet {
		switch format {
		case "", "table":
			format = "{{." + l.Key + "}}"
		case "raw":
			format = l.RawKey + ": {{." + l.Key + "}}"
		}
	}
	return l.Write(out, format, rows)
}

// Write prints rows: as the table of the columns, as JSON lines, or by a template.
func (l Listing[T]) Write(out io.Writer, format string, rows []T) error {
	switch format {
	case "", "table":
		return writeColumns(out, l.Columns, rows)
	case "json":
		format = "{{json .}}"
	case "raw":
		if l.Raw != "" {
			format = l.Raw + `{{println}}` // an empty line after each, which the template's own end would not be
		}
	}
	return WriteTemplate(out, format, l.Headers, rows)
}

// One prints one value: as JSON, or by a template.
func One(out io.Writer, format string, v any) error {
	if format == "json" {
		text, err := toJSON(v)
		if err != nil {
			return err
		}
		return show(out, bytes.NewBufferString(text+"\n"))
	}
	t, err := Template(format)
	if err != nil {
		return &Exit{Code: CodeUsage, Err: err}
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return TemplateError(err)
	}
	b.WriteByte('\n')
	return show(out, &b)
}

// Table prints rows of text in columns of at least a width.
func Table(out io.Writer, width int, rows [][]string) error {
	var b bytes.Buffer
	for _, row := range rows {
		b.WriteString(strings.Join(row, "\t") + "\n")
	}
	return alignTo(out, width, &b)
}

// align prints lines with their tabs as columns, as Docker does: at least 10 wide, 3 apart.
func align(out io.Writer, lines *bytes.Buffer) error { return alignTo(out, 10, lines) }

func alignTo(out io.Writer, width int, lines *bytes.Buffer) error {
	lines = bytes.NewBufferString(Printable(lines.String()))
	whole := bufio.NewWriterSize(out, 64<<10) // tabwriter writes each cell and each padding by itself
	w := tabwriter.NewWriter(whole, width, 1, 3, ' ', 0)
	if _, err := lines.WriteTo(w); err != nil {
		return err
	}
	return errors.Join(w.Flush(), whole.Flush())
}

func writeColumns[T any](out io.Writer, columns []Column[T], rows []T) error {
	cells := make([]string, 0, (1+len(rows))*len(columns))
	for _, c := range columns {
		cells = append(cells, c.Head)
	}
	for i := range rows {
		for _, c := range columns {
			cells = append(cells, Printable(c.Value(rows[i])))
		}
	}
	widths, size := make([]int, len(columns)), 0
	for i, cell := range cells {
		size += len(cell)
		if column := i % len(columns); column < len(columns)-1 {
			widths[column] = max(widths[column], utf8.RuneCountInString(cell)+3, 10) // as align has it
		}
		if strings.ContainsAny(cell, "\t\n\v\f") {
			return alignCells(out, len(columns), cells)
		}
	}
	for _, width := range widths {
		size += width * (1 + len(rows))
	}
	text := make([]byte, 0, size)
	for i, cell := range cells {
		text = append(text, cell...)
		if column := i % len(columns); column == len(columns)-1 {
			text = append(text, '\n')
		} else {
			for range widths[column] - utf8.RuneCountInString(cell) {
				text = append(text, ' ')
			}
		}
	}
	_, err := out.Write(text)
	return err
}

// alignCells has text/tabwriter align a table that has its characters in the cells: they begin columns and lines too.
func alignCells(out io.Writer, columns int, cells []string) error {
	var b bytes.Buffer
	for row := range slices.Chunk(cells, columns) {
		b.WriteString(strings.Join(row, "\t") + "\n")
	}
	return align(out, &b)
}

// WriteTemplate prints each row by a template and a newline; "table TEMPLATE" aligns the columns
// below their headings.
func WriteTemplate[T any](out io.Writer, format string, headers Headers, rows []T) error {
	text, table := strings.CutPrefix(format, "table")
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.TrimSpace(text))
	t, err := RowTemplate(text)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if table {
		if err := t.Funcs(headerFunctions).Execute(&b, headers); err != nil {
			return TemplateError(err)
		}
		b.WriteByte('\n')
		t.Funcs(functions).Funcs(rowFunctions)
	}
	for _, row := range rows {
		if err := t.Execute(&b, row); err != nil {
			return TemplateError(err)
		}
		b.WriteByte('\n')
	}
	if table {
		return align(out, &b)
	}
	return show(out, &b)
}

// Template parses a --format template, which has Docker's functions.
func Template(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(functions).Parse(text)
	if err != nil {
		return nil, TemplateError(err)
	}
	return t, nil
}

// RowTemplate is Template for the rows of lists.
func RowTemplate(text string) (*template.Template, error) {
	t, err := Template(text)
	if err != nil {
		return nil, err
	}
	return t.Funcs(rowFunctions), nil
}

// TemplateError says that the error is the format's.
func TemplateError(err error) error {
	return fault.New(fault.Invalid, "--format: template parsing error: %w", err)
}

var functions = template.FuncMap{
	"json":     toJSON,
	"split":    strings.Split,
	"join":     strings.Join,
	"title":    title,
	"lower":    strings.ToLower,
	"upper":    strings.ToUpper,
	"pad":      pad,
	"truncate": truncate,
}

// headerFunctions leave a heading as it is, whatever the template does to the values below.
var headerFunctions = template.FuncMap{
	"json":     func(v string) string { return v },
	"split":    func(v string, _ string) string { return v },
	"join":     func(v string, _ string) string { return v },
	"title":    func(v string) string { return v },
	"lower":    func(v string) string { return v },
	"upper":    func(v string) string { return v },
	"truncate": func(v string, _ int) string { return v },
}

// rowFunctions are those that differ for the rows of a list: Docker's rows make JSON of themselves, with
// what means something in HTML escaped, as encoding/json does unless told otherwise.
var rowFunctions = template.FuncMap{
	"json": func(v any) (string, error) {
		switch k := reflect.Indirect(reflect.ValueOf(v)); {
		case k.Kind() == reflect.Slice && k.Type().Elem().Kind() == reflect.Struct, k.Kind() == reflect.Struct:
		default:
			return toJSON(v)
		}
		text, err := json.Marshal(v)
		return string(text), err
	},
}

func toJSON(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

func title(s string) string {
	words := strings.Split(s, " ")
	for i, w := range words {
		if r, n := utf8.DecodeRuneInString(w); n > 0 {
			words[i] = strings.ToUpper(string(r)) + w[n:]
		}
	}
	return strings.Join(words, " ")
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", min(max(before, 0), 1000)) + s + strings.Repeat(" ", min(max(after, 0), 1000))
}

func truncate(s string, length int) string {
	if r := []rune(s); length >= 0 && len(r) > length {
		return string(r[:length])
	}
	return s
}

// Uses reports whether a template may use a field, so that what is costly is not asked for in vain.
func Uses(format, field string) bool {
	return strings.Contains(format, field) || format == "json" || strings.Contains(format, "json .}")
}

// Inspect prints what get returns for each name: a JSON array, or a template each. The template
// sees the typed value first, whose field names are Go's, then the JSON that the daemon sent. What
// cannot be got is an error after the rest is printed.
func Inspect(out io.Writer, names []string, format string, get func(name string) (typed any, raw json.RawMessage, err error)) error {
	var t *template.Template
	if format != "" && format != "json" {
		var err error
		if t, err = Template(format); err != nil {
			return &Exit{Code: CodeUsage, Err: err}
		}
	}
	var errs []error
	var values []json.RawMessage
	var text bytes.Buffer
	for _, name := range names {
		typed, raw, err := get(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if t == nil {
			values = append(values, raw)
		} else if err := inspectOne(&text, t, typed, raw); err != nil {
			errs = append(errs, err)
		}
	}
	if t == nil {
		if err := writeArray(&text, values, format == "json"); err != nil {
			return err
		}
	} else if text.Len() == 0 {
		text.WriteByte('\n')
	}
	if err := show(out, &text); err != nil {
		return err
	}
	return Join(errs)
}

func inspectOne(out *bytes.Buffer, t *template.Template, typed any, raw json.RawMessage) error {
	var b bytes.Buffer
	if typed == nil || t.Execute(&b, typed) != nil {
		b.Reset()
		var v any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("decode the object: %w", err)
		}
		if err := t.Option("missingkey=error").Execute(&b, v); err != nil {
			return TemplateError(err)
		}
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(out)
	return err
}

func writeArray(out *bytes.Buffer, values []json.RawMessage, compact bool) error {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(bytes.TrimSpace(v))
	}
	b.WriteByte(']')
	var err error
	if compact {
		err = json.Compact(out, b.Bytes())
	} else {
		err = json.Indent(out, b.Bytes(), "", "    ")
	}
	out.WriteByte('\n')
	return err
}
