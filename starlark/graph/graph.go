// Package graph is what an env.star evaluates to: the resources of an environment, with references
// between them, and not one of them made yet.
//
// A Resource has an Address (container.db), the Site of the line that declared it, and a Spec: its
// attributes, normalised, under the names that scripts use. Canonical turns a Spec into plain data,
// which plan compares and apply writes into a label, so that the next plan knows what was wanted.
//
// In a script a resource is a Ref: passing it to another resource makes the edge between them. What
// is known only after apply is an Unknown, a type of its own that refuses to be compared, tested or
// formatted. Text is a string that may contain one.
package graph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/script"
)

// Kind is a kind of resource.
type Kind string

// The kinds, in the order in which they are made.
const (
	KindImage     Kind = "image"
	KindNetwork   Kind = "network"
	KindVolume    Kind = "volume"
	KindContainer Kind = "container"
)

// Kinds lists them in that order.
var Kinds = []Kind{KindImage, KindNetwork, KindVolume, KindContainer}

// Address is a resource's name in scripts, plans and messages: container.db.
type Address struct {
	Kind Kind
	Name string
}

// String is KIND.NAME.
func (a Address) String() string { return string(a.Kind) + "." + a.Name }

// IsZero reports whether the address is none.
func (a Address) IsZero() bool { return a == Address{} }

// ParseAddress reads KIND.NAME.
func ParseAddress(s string) (Address, bool) {
	kind, name, ok := strings.Cut(s, ".")
	for _, k := range Kinds {
		if ok && name != "" && Kind(kind) == k {
			return Address{k, name}, true
		}
	}
	return Address{}, false
}

// MarshalText is String, so that addresses are keys and values of JSON.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is ParseAddress.
func (a *Address) UnmarshalText(b []byte) error {
	parsed, ok := ParseAddress(string(b))
	if !ok {
		return fmt.Errorf("address %q: expected KIND.NAME such as container.db", b)
	}
	*a = parsed
	return nil
}

// The labels that tie what the engine has to what a script declared. Images have labels of their
// own, because a container inherits its image's labels.
const (
	LabelEnv     = "sh.sampan.env"
	LabelAddress = "sh.sampan.address"
	LabelWanted  = "sh.sampan.wanted"

	LabelImageEnv     = "sh.sampan.image.env"
	LabelImageAddress = "sh.sampan.image.address"
	LabelImageWanted  = "sh.sampan.image.wanted"
)

// Resource is one declared thing.
type Resource struct {
	Address Address
	Name    string // in the engine: shop-db
	Site    diag.Site
	Spec    any // *Image, *Network, *Volume or *Container
	Needs   []Need
}

// Condition is what must be true of a resource before another may begin.
type Condition string

// The conditions.
const (
	Exists    Condition = "exists"
	Started   Condition = "started"
	Healthy   Condition = "healthy"
	Completed Condition = "completed" // ended with status 0
)

// Need is a condition on another resource.
type Need struct {
	On        Address
	Condition Condition
}

// Require adds a need; a stronger condition on the same resource replaces a weaker one.
func (r *Resource) Require(on Address, c Condition) {
	rank := map[Condition]int{Exists: 0, Started: 1, Healthy: 2, Completed: 2}
	for i, n := range r.Needs {
		if n.On == on {
			if rank[c] > rank[n.Condition] {
				r.Needs[i].Condition = c
			}
			return
		}
	}
	r.Needs = append(r.Needs, Need{on, c})
}

// Output is a value that apply prints at its end.
type Output struct {
	Name  string
	Value Text
	Site  diag.Site
}

// Task is a named function with effects: sampan script env.star NAME runs it.
type Task struct {
	Name string
	Doc  string
	Run  starlark.Callable
	Args map[string]script.ArgSpec
	Site diag.Site
}

// Graph is an environment.
type Graph struct {
	Env       string
	Resources []*Resource // in the order of declaration
	Outputs   []Output
	Tasks     []Task
	Session   *script.Session // that evaluated it: files for messages, inputs
}

// Find returns the resource of an address, or nil.
func (g *Graph) Find(a Address) *Resource {
	for _, r := range g.Resources {
		if r.Address == a {
			return r
		}
	}
	return nil
}

// Add declares a resource; an address can be declared once.
func (g *Graph) Add(r *Resource) error {
	if first := g.Find(r.Address); first != nil {
		return &diag.Problem{Message: fmt.Sprintf("%s is declared already at %s", r.Address, first.Site)}
	}
	g.Resources = append(g.Resources, r)
	return nil
}

var notInNames = diag.Pattern(`[^a-z0-9_.-]+`)

// EnvName makes a name for an environment of a folder's name.
func EnvName(dir string) string {
	name := strings.Trim(notInNames().ReplaceAllString(strings.ToLower(dir), "-"), "-_.")
	if name == "" {
		return "env"
	}
	return name
}

// Finish names the resources, once the environment's own name is known, and orders them so that
// each comes after those it needs. Needs cannot form a cycle: a script can only refer to what was
// declared before.
func (g *Graph) Finish() {
	for _, r := range g.Resources {
		if r.Name == "" {
			r.Name = g.Env + "-" + r.Address.Name
		}
	}
}

// Ordered returns the resources with each after those that it needs, and otherwise as declared.
func (g *Graph) Ordered() []*Resource {
	done := map[Address]bool{}
	var out []*Resource
	var visit func(r *Resource)
	visit = func(r *Resource) {
		if r == nil || done[r.Address] {
			return
		}
		done[r.Address] = true
		for _, n := range r.Needs {
			visit(g.Find(n.On))
		}
		out = append(out, r)
	}
	for _, r := range g.Resources {
		visit(r)
	}
	return out
}

// Canonical is a spec as plain data: what JSON can say, with absent fields left out.
func Canonical(spec any) map[string]any {
	data, err := json.Marshal(spec)
	if err != nil {
		panic(fmt.Sprintf("graph: a spec that JSON cannot say: %v", err)) // our own types only
	}
	return ParseCanonical(string(data))
}

// ParseCanonical reads what Canonical's JSON says; nil when it is none.
func ParseCanonical(s string) map[string]any {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var m map[string]any
	if d.Decode(&m) != nil {
		return nil
	}
	return m
}

// CanonicalJSON is the text of canonical data: keys sorted, no spaces, nothing escaped for HTML.
func CanonicalJSON(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("graph: data that JSON cannot say: %v", err))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Document is the graph as data, for `sampan graph --json` and the journal.
type Document struct {
	Env       string             `json:"env"`
	Resources []DocumentResource `json:"resources"`
	Outputs   map[string]Text    `json:"outputs,omitempty"`
	Tasks     []string           `json:"tasks,omitempty"`
	Inputs    []script.Input     `json:"inputs"`
}

// DocumentResource is one resource of a Document.
type DocumentResource struct {
	Address    string         `json:"address"`
	Name       string         `json:"name"`
	At         string         `json:"at"`
	Needs      []string       `json:"needs,omitempty"`
	Attributes map[string]any `json:"attributes"`
}

// Document makes it.
func (g *Graph) Document() Document {
	d := Document{Env: g.Env, Resources: []DocumentResource{}, Inputs: g.Session.Inputs.List()}
	for _, r := range g.Ordered() {
		dr := DocumentResource{Address: r.Address.String(), Name: r.Name, At: r.Site.String(), Attributes: Canonical(r.Spec)}
		for _, n := range r.Needs {
			dr.Needs = append(dr.Needs, n.On.String()+"."+string(n.Condition))
		}
		sort.Strings(dr.Needs)
		d.Resources = append(d.Resources, dr)
	}
	for _, o := range g.Outputs {
		if d.Outputs == nil {
			d.Outputs = map[string]Text{}
		}
		d.Outputs[o.Name] = o.Value
	}
	for _, t := range g.Tasks {
		d.Tasks = append(d.Tasks, t.Name)
	}
	return d
}
