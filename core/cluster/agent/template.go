package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Bounds of a template: what a user of the swarm writes is worked out by every daemon in it.
const (
	maxTemplate = 4 << 10  // bytes of its text
	maxExpanded = 64 << 10 // bytes of its outcome
)

// placeholders are what templates may name. No type of it has methods: a template could call them.
type placeholders struct {
	Service struct {
		ID, Name string
		Labels   map[string]string
	}
	Node struct {
		ID, Hostname string
		Platform     struct{ Architecture, OS string }
	}
	Task struct{ ID, Name, Slot string }
}

func placeholdersOf(want *session.Task, info *wire.Info) *placeholders {
	var p placeholders
	p.Service.ID, p.Service.Name, p.Service.Labels = want.ServiceID, want.Service.Name, want.Service.Labels
	p.Node.ID, p.Node.Hostname = want.NodeID, info.Name
	p.Node.Platform.Architecture, p.Node.Platform.OS = info.Architecture, info.OSType
	p.Task.ID, p.Task.Name, p.Task.Slot = want.ID, nameOf(want), slotOf(want)
	return &p
}

// expand returns the container with its templates worked out: in the host name, the values of the environment,
// and what mounts have of text, as Docker does.
func expand(want *session.Task, info *wire.Info) (*wire.ContainerSpec, error) {
	p := placeholdersOf(want, info)
	spec, err := clone(want.Spec.ContainerSpec)
	if err != nil {
		return nil, err
	}
	for i, e := range spec.Env {
		name, value, has := strings.Cut(e, "=")
		if !has {
			continue
		}
		if value, err = p.expand(value); err != nil {
			return nil, fmt.Errorf("expanding env failed: expanding env %q: %w", shortened(e, 128), err)
		}
		spec.Env[i] = name + "=" + value
	}
	for i := range spec.Mounts {
		if err := p.expandMount(&spec.Mounts[i]); err != nil {
			return nil, fmt.Errorf("expanding mounts failed: %w", err)
		}
	}
	if spec.Hostname, err = p.expand(spec.Hostname); err != nil {
		return nil, fmt.Errorf("expanding hostname failed: %w", err)
	}
	return spec, nil
}

// clone copies a container with all that it points to: the engine completes what it is given in place.
func clone(given *wire.ContainerSpec) (*wire.ContainerSpec, error) {
	text, err := json.Marshal(given)
	if err != nil {
		return nil, err
	}
	var spec wire.ContainerSpec
	return &spec, json.Unmarshal(text, &spec)
}

func (p *placeholders) expandMount(m *wire.MountSpec) (err error) {
	given := *m
	if m.Source, err = p.expand(m.Source); err != nil {
		return fmt.Errorf("expanding mount source %q: %w", shortened(given.Source, 128), err)
	}
	if m.Target, err = p.expand(m.Target); err != nil {
		return fmt.Errorf("expanding mount target %q: %w", shortened(given.Target, 128), err)
	}
	if m.VolumeOptions == nil {
		return nil
	}
	options := m.VolumeOptions
	if options.Labels, err = p.expandValues(options.Labels); err != nil {
		return fmt.Errorf("expanding volume labels: %w", err)
	}
	if options.DriverConfig != nil {
		driver := options.DriverConfig
		if driver.Options, err = p.expandValues(driver.Options); err != nil {
			return fmt.Errorf("expanding volume driver config: %w", err)
		}
	}
	return nil
}

func (p *placeholders) expandValues(given map[string]string) (map[string]string, error) {
	expanded := maps.Clone(given)
	for k, v := range given {
		value, err := p.expand(v)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", shortened(v, 128), err)
		}
		expanded[k] = value
	}
	return expanded, nil
}

// functions beside those of text/template, and those of it that make text longer, with a bound.
var functions = template.FuncMap{
	"join":     func(between string, parts ...string) (string, error) { return short(strings.Join(parts, between)) },
	"printf":   func(format string, args ...any) (string, error) { return short(fmt.Sprintf(format, args...)) },
	"print":    func(args ...any) (string, error) { return short(fmt.Sprint(args...)) },
	"println":  func(args ...any) (string, error) { return short(fmt.Sprintln(args...)) },
	"js":       func(args ...any) (string, error) { return short(template.JSEscaper(args...)) },
	"html":     func(args ...any) (string, error) { return short(template.HTMLEscaper(args...)) },
	"urlquery": func(args ...any) (string, error) { return short(template.URLQueryEscaper(args...)) },
}

func short(s string) (string, error) {
	if len(s) > maxExpanded {
		return "", errTooLong
	}
	return s, nil
}

var errTooLong = fault.New(fault.Invalid, "template: the outcome has more than %d bytes", maxExpanded)

// expand works out one template.
func (p *placeholders) expand(text string) (string, error) {
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	if len(text) > maxTemplate {
		return "", fault.New(fault.Invalid, "template: %d bytes: expected at most %d", len(text), maxTemplate)
	}
	t, err := template.New("expansion").Option("missingkey=error").Funcs(functions).Parse(text)
	if err != nil {
		return "", fault.As(fault.Invalid, err)
	}
	for _, part := range t.Templates() {
		if err := finite(part.Root); err != nil {
			return "", err
		}
	}
	out := bounded{}
	if err := t.Execute(&out, p); err != nil {
		return "", fault.As(fault.Invalid, err)
	}
	return out.String(), nil
}

// finite refuses what makes the work on a template more than its text is long: loops, templates that
// call each other, and variables, with which text can double itself.
func finite(node parse.Node) error {
	refused := func(what string) error {
		return fault.New(fault.Invalid, "template: %s: expected placeholders and functions only", what)
	}
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return nil
		}
		return finiteAll(n.Nodes...)
	case *parse.RangeNode:
		return refused("range")
	case *parse.TemplateNode:
		return refused("template")
	case *parse.IfNode:
		return finiteAll(n.Pipe, n.List, n.ElseList)
	case *parse.WithNode:
		return finiteAll(n.Pipe, n.List, n.ElseList)
	case *parse.ActionNode:
		return finite(n.Pipe)
	case *parse.PipeNode:
		if n != nil && len(n.Decl) > 0 {
			return refused("a variable")
		}
	}
	return nil
}

func finiteAll(nodes ...parse.Node) error {
	for _, n := range nodes {
		if err := finite(n); err != nil {
			return err
		}
	}
	return nil
}

// bounded is a buffer that refuses more than maxExpanded bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxExpanded {
		return 0, errTooLong
	}
	return b.Buffer.Write(p)
}
