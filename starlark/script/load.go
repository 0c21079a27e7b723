package script

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/stdlib"
)

// File is a file that scripts can name.
type File struct {
	Name string // as messages show it; unique in a session
	path string // absolute, "" in the standard library
	std  string // path in the standard library
}

// Dir is the folder of the file, "" in the standard library.
func (f File) Dir() string {
	if f.path == "" {
		return ""
	}
	return filepath.Dir(f.path)
}

// The limits of one file. The nesting protects the parser, which recurses.
const (
	maxFile    = 1 << 20
	maxNesting = 200
)

// resolve finds the file that a label in from means.
func (s *Session) resolve(from File, label string) (File, error) {
	switch {
	case strings.HasPrefix(label, "@std//"):
		name := strings.TrimPrefix(label, "@std//")
		if !fs.ValidPath(name) || name == "." {
			return File{}, badLabel(label)
		}
		if _, err := fs.Stat(stdlib.FS, name); err != nil {
			return File{}, &diag.Problem{Message: fmt.Sprintf("no %s in the standard library", name), Nearest: nearestStd(name), Cause: fault.New(fault.NotFound, "no such file")}
		}
		return File{Name: label, std: name}, nil
	case strings.HasPrefix(label, "@"):
		name, _, _ := strings.Cut(label, "//")
		return File{}, &diag.Problem{
			Message: fmt.Sprintf("no dependency %s: the workspace has no lock file (%s)", name, s.show(filepath.Join(s.root, "sampan.lock"))),
			Cure:    "dependencies by lock file are not there yet; @std is built in, and // and : load from the workspace",
			Cause:   fault.New(fault.NotImplemented, "no lock file"),
		}
	}
	p, err := s.Path(from, label)
	if err != nil {
		return File{}, err
	}
	if from.std != "" && from.path == "" && !strings.HasPrefix(label, "//") {
		return File{Name: "@std//" + p, std: p}, nil
	}
	return File{Name: s.show(p), path: p}, nil
}

func nearestStd(name string) string {
	names, err := fs.Glob(stdlib.FS, "*.star")
	if err != nil {
		return ""
	}
	if n := fault.Nearest(name, names); n != "" {
		return "@std//" + n
	}
	return ""
}

func badLabel(label string) error {
	return &diag.Problem{
		Message: fmt.Sprintf("expected a label such as \"//dir/x.star\", \":x.star\" or \"@std//web.star\", got %q", label),
		Nearest: nearLabel(label),
	}
}

// nearLabel is what somebody who wrote a plain relative path meant.
func nearLabel(label string) string {
	if label == "" || strings.HasPrefix(label, "/") || strings.Contains(label, "..") || strings.HasPrefix(label, ":") {
		return ""
	}
	return ":" + strings.TrimPrefix(label, "./")
}

// Path resolves a label of a file or folder in the workspace to an absolute path (in a file of the
// standard library: to a path in that). Nothing outside of the workspace can be named.
func (s *Session) Path(from File, label string) (string, error) {
	var base, rel string
	switch {
	case strings.HasPrefix(label, "//"):
		base, rel = s.root, label[2:]
	case strings.HasPrefix(label, ":"):
		base, rel = from.Dir(), label[1:]
	default:
		return "", badLabel(label)
	}
	if strings.ContainsAny(rel, "\x00\\") || path.IsAbs(rel) {
		return "", badLabel(label)
	}
	if from.path == "" && !strings.HasPrefix(label, "//") {
		clean := path.Clean(path.Join(path.Dir(from.std), rel))
		if !fs.ValidPath(clean) {
			return "", badLabel(label)
		}
		return clean, nil
	}
	abs := filepath.Join(base, filepath.FromSlash(rel))
	if below, err := filepath.Rel(s.root, abs); err != nil || below != "." && !filepath.IsLocal(below) {
		return "", &diag.Problem{Message: fmt.Sprintf("%q is outside of the workspace %s", label, s.show(s.root))}
	}
	return abs, nil
}

// Local is Path for the arguments of builtins, where a plain relative path is the file's folder's:
// "src", "./src", ":src" and "//src" are all fine.
func (s *Session) Local(from File, name string) (string, error) {
	if !strings.HasPrefix(name, "//") && !strings.HasPrefix(name, ":") && !strings.HasPrefix(name, "/") && name != "" {
		name = ":" + name
	}
	return s.Path(from, name)
}

// Show is an absolute path as messages have it.
func (s *Session) Show(abs string) string { return s.show(abs) }

// Caller is the file whose code is running on the thread: of a dependency, if it is in one.
func Caller(thread *starlark.Thread) File {
	s := From(thread)
	if s == nil {
		return File{}
	}
	stack := thread.CallStack()
	for i := len(stack) - 1; i >= 0; i-- {
		if p := stack[i].Pos; p.Line > 0 {
			return s.fileNamed(p.Filename())
		}
	}
	return File{}
}

func (s *Session) fileNamed(name string) File {
	if std, ok := strings.CutPrefix(name, "@std//"); ok {
		return File{Name: name, std: std}
	}
	if filepath.IsAbs(name) {
		return File{Name: name, path: name}
	}
	return File{Name: name, path: filepath.Join(s.options.Dir, filepath.FromSlash(name))}
}

// read returns a file's text. Symbolic links that lead out of the workspace are refused.
func (s *Session) read(f File) ([]byte, error) {
	if f.path == "" {
		return fs.ReadFile(stdlib.FS, f.std)
	}
	in, err := s.open(f.path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fault.New(fault.Invalid, "%s: a script has at most %d bytes", f.Name, maxFile)
	}
	return data, nil
}

// open opens a file of the workspace without following a link out of it.
func (s *Session) open(abs string) (*os.File, error) {
	root, err := os.OpenRoot(s.root)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // a handle of a directory
	rel, err := filepath.Rel(s.root, abs)
	if err != nil {
		return nil, err
	}
	f, err := root.Open(rel)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "%s: no such file", s.show(abs))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.show(abs), errors.Unwrap(err))
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fault.New(fault.Invalid, "%s: expected a file", s.show(abs))
	}
	return f, nil
}

// modules are the files evaluated with one universe.
type modules struct {
	universe starlark.StringDict
	done     map[string]module
}

type module struct {
	globals starlark.StringDict
	err     error
}

func newModules(universe starlark.StringDict) *modules {
	return &modules{universe: universe, done: map[string]module{}}
}

// loader is what load() calls.
func (m *modules) loader(thread *starlark.Thread, label string) (starlark.StringDict, error) {
	s := From(thread)
	chain, _ := thread.Local(localChain).([]File)
	if len(chain) == 0 {
		return nil, fault.New(fault.Invalid, "load is for the top of a file")
	}
	file, err := s.resolve(chain[len(chain)-1], label)
	if err != nil {
		return nil, err
	}
	for i, f := range chain {
		if f.Name == file.Name {
			return nil, &diag.Problem{Message: "load cycle: " + cycle(append(chain[i:len(chain):len(chain)], file))}
		}
	}
	return m.load(Context(thread), s, file, chain)
}

func cycle(files []File) string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Name
	}
	return strings.Join(names, " -> ")
}

// load evaluates a file once. chain is the files that are being loaded, outermost first.
func (m *modules) load(ctx context.Context, s *Session, file File, chain []File) (starlark.StringDict, error) {
	if known, ok := m.done[file.Name]; ok {
		return known.globals, known.err
	}
	globals, err := m.evaluate(ctx, s, file, append(chain[:len(chain):len(chain)], file))
	m.done[file.Name] = module{globals, err}
	return globals, err
}

func (m *modules) evaluate(ctx context.Context, s *Session, file File, chain []File) (starlark.StringDict, error) {
	text, err := s.read(file)
	if err != nil {
		return nil, err
	}
	s.Files.Add(file.Name, text)
	s.Inputs.record(Input{Kind: "script", Name: file.Name, Digest: digest(text)})
	tree, err := Parse(file.Name, text)
	if err != nil {
		return nil, s.Files.Explain(err)
	}
	s.Files.AddTree(file.Name, tree)
	if err := guard(tree); err != nil {
		return nil, s.Files.Explain(err)
	}
	program, err := starlark.FileProgram(tree, m.universe.Has)
	if err != nil {
		return nil, s.Files.Explain(err)
	}
	thread, done := s.thread(ctx, file.Name, chain)
	defer done()
	globals, err := program.Init(thread, m.universe)
	if err != nil {
		return nil, s.Files.Explain(err)
	}
	globals.Freeze()
	return globals, nil
}

// Parse reads a file of the dialect, hostile or not, into its syntax tree.
func Parse(name string, text []byte) (*syntax.File, error) {
	if err := nesting(name, text); err != nil {
		return nil, err
	}
	return dialect.Parse(name, bytes.TrimPrefix(text, []byte("\ufeff")), syntax.RetainComments)
}

// nesting refuses text whose brackets are nested deeper than any person writes: the parser recurses
// on them, and a Go program cannot survive the end of its stack. Brackets in strings and comments
// are counted too; a closing bracket without an opening one counts for nothing.
func nesting(name string, text []byte) error {
	depth, line, col := 0, 1, 1
	run := 0 // operators that recurse without a bracket: - - - x, not not x, lambda: lambda: x
	for i, c := range text {
		switch c {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth = max(0, depth-1)
		case '\n':
			line, col, run = line+1, 0, 0
		case '-', '+', '~':
			run++
		case 'n', 'l', 'i', 'e':
			if bytes.HasPrefix(text[i:], []byte("not ")) || bytes.HasPrefix(text[i:], []byte("lambda")) || bytes.HasPrefix(text[i:], []byte("if ")) || bytes.HasPrefix(text[i:], []byte("else ")) {
				run++
			}
		}
		col++
		if depth > maxNesting || run > 50*maxNesting {
			pos := syntax.MakePosition(&name, int32(line), int32(col-1))
			return syntax.Error{Pos: pos, Msg: fmt.Sprintf("expected at most %d brackets within each other", maxNesting)}
		}
	}
	return nil
}
