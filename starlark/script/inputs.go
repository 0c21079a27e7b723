package script

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
)

// Input is one thing that an evaluation learned of the world.
type Input struct {
	Kind   string `json:"kind"` // script, arg, env, file, glob, local, secret
	Name   string `json:"name"`
	Digest string `json:"digest"` // of the value; values themselves are not kept
}

// Declared is one arg() of a script, for graphs and for errors about unknown ones.
type Declared struct {
	Name, Type, Default, Doc string
	Required                 bool
	At                       diag.Site
}

// Inputs are all that an evaluation learned, in order.
type Inputs struct {
	mu       sync.Mutex
	list     []Input
	seen     map[Input]bool
	args     map[string]string
	declared []Declared
	up       *Inputs // of the session that this one was forked from
}

func newInputs(args map[string]string) *Inputs {
	return &Inputs{seen: map[Input]bool{}, args: args}
}

func (i *Inputs) fork(args map[string]string) *Inputs {
	return &Inputs{seen: map[Input]bool{}, args: args, up: i}
}

func (i *Inputs) record(in Input) {
	if i.up != nil {
		i.up.record(in)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.seen[in] {
		i.seen[in] = true
		i.list = append(i.list, in)
	}
}

// Record adds an input that another room read: a build's local files, a secret.
func (i *Inputs) Record(in Input) { i.record(in) }

// List returns the inputs in the order in which they were first used.
func (i *Inputs) List() []Input {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]Input(nil), i.list...)
}

// Declared returns the arguments that the script asked for, in order.
func (i *Inputs) Declared() []Declared { return append([]Declared(nil), i.declared...) }

// Unused is the error for given arguments that no arg() asked for.
func (i *Inputs) Unused() error {
	var names []string
	for _, d := range i.declared {
		names = append(names, d.Name)
	}
	for _, given := range arg.Keys(i.args) {
		found := false
		for _, n := range names {
			found = found || n == given
		}
		if !found {
			expected := "an argument that the script declares"
			if len(names) > 0 {
				expected += ": " + strings.Join(names, ", ")
			} else {
				expected += " (it declares none)"
			}
			return &fault.Field{Field: "--arg", Given: given, Expected: expected, Nearest: fault.Nearest(given, names)}
		}
	}
	return nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Digest is the digest by which inputs are recorded.
func Digest(b []byte) string { return digest(b) }

func (s *Session) inputBuiltins() starlark.StringDict {
	u := starlark.StringDict{"arg": s.argValue()}
	for _, f := range []arg.Func{s.readFunc(), s.globFunc()} {
		u[f.Name] = f.Builtin()
	}
	return u
}

// InputFuncs declares the input builtins, for the reference.
func InputFuncs() []arg.Func {
	s := New(Options{})
	return []arg.Func{s.argFunc(), s.EnvFunc(), s.readFunc(), s.globFunc()}
}

// argValue is the name arg: a function, with arg.string and its like for tasks.
func (s *Session) argValue() starlark.Value {
	members := starlark.StringDict{}
	for _, kind := range []string{"string", "int", "bool"} {
		members[kind] = ArgKind(kind).Builtin()
	}
	return &Callable{Builtin: s.argFunc().Builtin(), members: members}
}

// Callable is a builtin that also has members: arg(...) and arg.string(...), env(...) and env.get(...).
type Callable struct {
	*starlark.Builtin
	members starlark.StringDict
}

// NewCallable makes one.
func NewCallable(b *starlark.Builtin, members starlark.StringDict) *Callable {
	return &Callable{b, members}
}

// Attr returns a member.
func (c *Callable) Attr(name string) (starlark.Value, error) {
	if member, ok := c.members[name]; ok {
		return member, nil
	}
	return nil, diag.NoField(c.Name(), name, c.AttrNames())
}

// AttrNames lists the members.
func (c *Callable) AttrNames() []string { return c.members.Keys() }

// ArgSpec is what arg.string(...) makes: an argument of a task.
type ArgSpec struct {
	Kind    string // string, int, bool
	Default starlark.Value
	Doc     string
	Choices []string
}

// ArgKind declares arg.string, arg.int or arg.bool.
func ArgKind(kind string) arg.Func {
	return arg.Func{
		Name: kind, Of: "arg", Returns: "an argument of a task",
		Doc: "Declares an argument of a task, of type " + kind + ".",
		Params: []arg.Param{
			{Name: "default", Type: arg.Any, Doc: "Its value when none is given; without a default it must be given."},
			{Name: "doc", Type: arg.String, Doc: "What it is."},
			{Name: "choices", Type: arg.List[string](arg.String), Doc: "The only values."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			spec := ArgSpec{Kind: kind, Default: arg.Get[starlark.Value](c, "default"), Doc: arg.Get[string](c, "doc"), Choices: arg.Get[[]string](c, "choices")}
			if spec.Default != nil && spec.Default.Type() != kind {
				return nil, c.Problem("default", "expected %s, got %s", kind, diag.Given(spec.Default))
			}
			return argSpecValue{starlarkstruct.FromStringDict(starlark.String("arg."+kind), starlark.StringDict{}), spec}, nil
		},
	}
}

type argSpecValue struct {
	*starlarkstruct.Struct
	spec ArgSpec
}

// ArgSpecType is the type of values that arg.string and its like make.
var ArgSpecType = arg.Of("arg.string(), arg.int() or arg.bool()", func(v starlark.Value) (ArgSpec, bool) {
	a, ok := v.(argSpecValue)
	return a.spec, ok
})

// Parse reads the text given for an argument.
func (a ArgSpec) Parse(text string) (starlark.Value, error) {
	if len(a.Choices) > 0 {
		found := false
		for _, c := range a.Choices {
			found = found || c == text
		}
		if !found {
			return nil, &fault.Field{Field: "value", Given: text, Expected: "one of " + strings.Join(a.Choices, ", "), Nearest: fault.Nearest(text, a.Choices)}
		}
	}
	switch a.Kind {
	case "int":
		n, err := strconv.ParseInt(text, 0, 64)
		if err != nil {
			return nil, &fault.Field{Field: "value", Given: text, Expected: "a whole number"}
		}
		return starlark.MakeInt64(n), nil
	case "bool":
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, &fault.Field{Field: "value", Given: text, Expected: "true or false"}
		}
		return starlark.Bool(b), nil
	}
	return starlark.String(text), nil
}

func (s *Session) argFunc() arg.Func {
	return arg.Func{
		Name: "arg", Positional: 1, Named: true, Returns: "string, int or bool",
		Doc:     "Declares an input that the caller gives by `--arg NAME=VALUE`. Its type is the default's; without a default it is a string and must be given.",
		Example: `port = arg("port", default = "8080", doc = "where the host finds the page")`,
		Params: []arg.Param{
			{Name: "name", Type: arg.Name, Required: true, Doc: "The name after `--arg`."},
			{Name: "default", Type: arg.Any, Doc: "The value when none is given: a string, int or bool."},
			{Name: "doc", Type: arg.String, Doc: "What it is, for `sampan graph` and for who did not give it."},
			{Name: "choices", Type: arg.List[string](arg.String), Doc: "The only values."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) { return From(c.Thread).arg(c) },
	}
}

func (s *Session) arg(c *arg.Call) (starlark.Value, error) {
	name := arg.Get[string](c, "name")
	spec := ArgSpec{Kind: "string", Default: arg.Get[starlark.Value](c, "default"), Choices: arg.Get[[]string](c, "choices")}
	d := Declared{Name: name, Doc: arg.Get[string](c, "doc"), Required: spec.Default == nil, At: Site(c.Thread)}
	if spec.Default != nil {
		switch v := spec.Default.(type) {
		case starlark.String:
			d.Default = string(v)
		case starlark.Int, starlark.Bool:
			spec.Kind, d.Default = v.Type(), strings.ToLower(v.String())
		default:
			return nil, c.Problem("default", "expected string, int or bool, got %s", diag.Given(v))
		}
	}
	d.Type = spec.Kind
	s.Inputs.declared = append(s.Inputs.declared, d)
	text, given := s.Inputs.args[name]
	if !given {
		if spec.Default == nil {
			message := "no value is given"
			if d.Doc != "" {
				message += ": " + d.Doc
			}
			return nil, &diag.Problem{Subject: c.Subject, Message: message, Cure: fmt.Sprintf("give it by --arg %s=VALUE, or a default in the script", name)}
		}
		s.Inputs.record(Input{"arg", name, digest([]byte(d.Default))})
		return spec.Default, nil
	}
	s.Inputs.record(Input{"arg", name, digest([]byte(text))})
	v, err := spec.Parse(text)
	var f *fault.Field
	if errors.As(err, &f) {
		return nil, &diag.Problem{Subject: c.Subject, Message: fmt.Sprintf("expected %s, got --arg %s=%s", f.Expected, name, text), Nearest: f.Nearest}
	}
	return v, err
}

// EnvFunc declares env.get, which every kind of script has.
func (s *Session) EnvFunc() arg.Func {
	return arg.Func{
		Name: "get", Of: "env", Positional: 1, Returns: "string",
		Doc:     "Declares an environment variable of the caller as an input.",
		Example: `tag = env.get("CI_COMMIT", default = "dev")`,
		Params: []arg.Param{
			{Name: "name", Type: arg.String, Required: true, Doc: "The variable."},
			{Name: "default", Type: arg.String, Doc: "The value when it is not set; without a default it must be set."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			s, name := From(c.Thread), arg.Get[string](c, "name")
			v, ok := s.options.Environ(name)
			if !ok && !c.Given("default") {
				return nil, c.Problem("name", "the variable %s is not set", name)
			}
			if !ok {
				v = arg.Get[string](c, "default")
			}
			s.Inputs.record(Input{"env", name, digest([]byte(v))})
			return starlark.String(v), nil
		},
	}
}

// Secret reads a secret's value from a variable or a file of the workspace, and records that.
func (s *Session) Secret(from File, name, variable, file string) (string, error) {
	var value string
	switch {
	case variable != "":
		v, ok := s.options.Environ(variable)
		if !ok {
			return "", &diag.Problem{Arg: "env", Message: fmt.Sprintf("the variable %s is not set", variable)}
		}
		value = v
	default:
		data, err := s.ReadFile(from, file)
		if err != nil {
			return "", &diag.Problem{Arg: "file", Message: err.Error(), Cause: err}
		}
		value = strings.TrimRight(string(data), "\r\n")
	}
	s.record(Input{"secret", name, ""})
	return value, nil
}

func (s *Session) record(in Input) { s.Inputs.record(in) }

// maxRead bounds read(): a configuration file, not a disk image.
const maxRead = 16 << 20

// ReadFile reads a file of the workspace by its label.
func (s *Session) ReadFile(from File, label string) ([]byte, error) {
	abs, err := s.Local(from, label)
	if err != nil {
		return nil, err
	}
	f, err := s.open(abs)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRead+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxRead {
		return nil, fault.New(fault.Invalid, "%s: expected a file of at most %d bytes", s.show(abs), maxRead)
	}
	return data, nil
}

func (s *Session) readFunc() arg.Func {
	return arg.Func{
		Name: "read", Positional: 1, Returns: "string",
		Doc:     "Reads a text file of the workspace, as an input.",
		Example: `conf = read(":nginx.conf")`,
		Params: []arg.Param{
			{Name: "path", Type: arg.String, Required: true, Doc: "`//from/the/root`, or relative to this file's folder."},
			{Name: "default", Type: arg.String, Doc: "The text when there is no such file."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			s, label := From(c.Thread), arg.Get[string](c, "path")
			data, err := s.ReadFile(Caller(c.Thread), label)
			if fault.Is(err, fault.NotFound) && c.Given("default") {
				data, err = []byte(arg.Get[string](c, "default")), nil
			}
			if err != nil {
				return nil, pathProblem(c, err)
			}
			s.record(Input{"file", label, digest(data)})
			return starlark.String(data), nil
		},
	}
}

// pathProblem puts a label's error at the argument that has the label.
func pathProblem(c *arg.Call, err error) error {
	var p *diag.Problem
	if errors.As(err, &p) {
		p.Arg = "path"
		return p
	}
	q := c.Problem("path", "%v", err)
	q.Cause = err
	return q
}

// maxMatches bounds glob().
const maxMatches = 100_000

func (s *Session) globFunc() arg.Func {
	return arg.Func{
		Name: "glob", Positional: 1, Returns: "list of string",
		Doc:     "Lists the files of this file's folder and below that match, sorted, relative to the folder. `*` stays within a folder, `**` does not.",
		Example: `confs = glob(["conf.d/*.conf"], exclude = ["conf.d/local-*"])`,
		Params: []arg.Param{
			{Name: "patterns", Type: arg.List[string](arg.String), Required: true, Doc: "What to list, such as `conf.d/*.conf`."},
			{Name: "exclude", Type: arg.List[string](arg.String), Doc: "What not to list."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) { return From(c.Thread).glob(c) },
	}
}

func (s *Session) glob(c *arg.Call) (starlark.Value, error) {
	dir := Caller(c.Thread).Dir()
	if dir == "" {
		return nil, c.Problem("", "a library has no files of its own: glob is for files of the workspace")
	}
	patterns, exclude := arg.Get[[]string](c, "patterns"), arg.Get[[]string](c, "exclude")
	for i, p := range patterns {
		if path.IsAbs(p) || strings.HasPrefix(p, "!") || strings.Contains("/"+p+"/", "/../") {
			q := c.Problem("patterns", "expected a pattern below this file's folder, got %q", p)
			q.Path = []diag.Step{diag.Index(i)}
			return nil, q
		}
	}
	include, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, c.Problem("patterns", "%v", err)
	}
	without, err := patternmatcher.New(exclude)
	if err != nil {
		return nil, c.Problem("exclude", "%v", err)
	}
	found, err := match(dir, include, without)
	if err != nil {
		return nil, c.Problem("patterns", "%v", err)
	}
	s.record(Input{"glob", strings.Join(patterns, " "), digest([]byte(strings.Join(found, "\x00")))})
	values := make([]starlark.Value, len(found))
	for i, f := range found {
		values[i] = starlark.String(f)
	}
	return starlark.NewList(values), nil
}

func match(dir string, include, without *patternmatcher.PatternMatcher) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(p, dir+string(os.PathSeparator)))
		if d.IsDir() {
			if d.Name() == ".git" {
				return fs.SkipDir
			}
			return nil
		}
		in, err := include.MatchesOrParentMatches(rel)
		if err != nil || !in {
			return err
		}
		if out, err := without.MatchesOrParentMatches(rel); err != nil || out {
			return err
		}
		if found = append(found, rel); len(found) > maxMatches {
			return fmt.Errorf("expected at most %d files", maxMatches)
		}
		return nil
	})
	sort.Strings(found)
	return found, err
}
