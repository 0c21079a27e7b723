// Package plan compares what an environment wants with what the engine has, and answers with the
// changes: a document that people read and apply carries out.
//
// What is there is found by labels: sh.sampan.env names the environment, sh.sampan.address the
// resource in it, and sh.sampan.wanted holds the normalised attributes as they were wanted when it
// was made. Wanted is compared with wanted, so what the engine fills in by itself is never a
// difference, and a plan after an apply is empty. The engine is asked for the rest: whether the
// thing exists, runs, and is made of the image that its name means now.
//
// have.go reads the engine, diff.go compares attributes, text.go prints for people.
package plan

import (
	"context"
	"fmt"
	"slices"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/graph"
)

// Action is what is done to a resource.
type Action string

// The actions.
const (
	Create  Action = "create"
	Update  Action = "update"  // made again under the same name: an image
	Replace Action = "replace" // removed, then made again
	Start   Action = "start"   // it is there and does not run
	Delete  Action = "delete"
)

// Change is one resource that is not as it should be.
type Change struct {
	Action     Action        `json:"action"`
	Address    graph.Address `json:"address"`
	Name       string        `json:"name"` // in the engine
	At         string        `json:"at,omitempty"`
	Reason     string        `json:"reason,omitempty"` // when no attribute of its own is
	Attributes []Difference  `json:"attributes,omitempty"`

	Resource *graph.Resource `json:"-"` // nil when it is no longer declared
	Have     *Existing       `json:"-"` // nil for Create
}

// Plan is the difference.
type Plan struct {
	Env       string   `json:"env"`
	Changes   []Change `json:"changes"` // in the order in which they can be made; deletions last
	Unchanged int      `json:"unchanged"`

	// Leftovers are images of earlier applies that no name and no resource means any more. They are
	// no change; apply and destroy clear them away.
	Leftovers []string `json:"-"`
}

// Empty reports whether everything is as it should be.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// Find returns the change of an address, or nil.
func (p *Plan) Find(a graph.Address) *Change {
	for i := range p.Changes {
		if p.Changes[i].Address == a && p.Changes[i].Action != Delete {
			return &p.Changes[i]
		}
	}
	return nil
}

// Make compares the graph with what the engine has.
func Make(ctx context.Context, e Engine, g *graph.Graph) (*Plan, error) {
	have, err := Read(ctx, e, g.Env)
	if err != nil {
		return nil, err
	}
	m := &maker{ctx: ctx, engine: e, graph: g, have: have, plan: &Plan{Env: g.Env, Changes: []Change{}, Leftovers: have.leftovers}}
	for _, r := range g.Ordered() {
		if err := m.resource(r); err != nil {
			return nil, err
		}
	}
	var gone []*Existing
	for _, x := range have.all() {
		if x.extra || g.Find(x.Address) == nil {
			gone = append(gone, x)
		}
	}
	m.plan.delete(nil, gone, "no longer declared")
	return m.plan, nil
}

// Destroy is the plan that leaves nothing of the environment.
func Destroy(ctx context.Context, e Engine, g *graph.Graph, keep func(graph.Address) bool) (*Plan, error) {
	have, err := Read(ctx, e, g.Env)
	if err != nil {
		return nil, err
	}
	p := &Plan{Env: g.Env, Changes: []Change{}, Leftovers: have.leftovers}
	var gone []*Existing
	for _, x := range have.all() {
		if keep != nil && keep(x.Address) {
			p.Unchanged++
			continue
		}
		gone = append(gone, x)
	}
	p.delete(g, gone, "")
	return p, nil
}

// delete adds the deletions, users before what they use. The graph, if any, knows who needs whom.
func (p *Plan) delete(g *graph.Graph, gone []*Existing, reason string) {
	slices.SortStableFunc(gone, func(a, b *Existing) int { return rank(b.Address.Kind) - rank(a.Address.Kind) })
	for _, x := range gone {
		c := Change{Action: Delete, Address: x.Address, Name: x.Name, Reason: reason, Have: x}
		if g != nil {
			c.Resource = g.Find(x.Address)
		}
		p.Changes = append(p.Changes, c)
	}
}

func rank(k graph.Kind) int { return slices.Index(graph.Kinds, k) }

type maker struct {
	ctx    context.Context
	engine Engine
	graph  *graph.Graph
	have   *Have
	plan   *Plan
}

func (m *maker) resource(r *graph.Resource) error {
	have := m.have.find(r.Address)
	change := Change{Address: r.Address, Name: r.Name, At: r.Site.String(), Resource: r, Have: have}
	if image, ok := r.Spec.(*graph.Image); ok {
		if err := m.bases(image, have); err != nil {
			return err
		}
	}
	if have == nil {
		if what := m.have.foreign(r); what != "" {
			return r.Site.Error(&diag.Problem{Subject: Subject(r.Address), Message: "the engine has " + what + " that this environment did not make",
				Cure: "remove or rename it, or give the environment another name: env(\"...\")", Cause: fault.New(fault.Conflict, "name taken")})
		}
		change.Action, change.Attributes = Create, Compare(nil, graph.Canonical(r.Spec))
		m.plan.Changes = append(m.plan.Changes, change)
		return nil
	}
	change.Attributes = Compare(have.Wanted, graph.Canonical(r.Spec))
	if err := m.drift(r, have, &change); err != nil {
		return err
	}
	if len(change.Attributes) > 0 {
		change.Action = Replace
	}
	if on := m.follows(r); change.Action != Replace && on != nil {
		change.Action, change.Reason = Replace, fmt.Sprintf("%s changes", on.Address)
	}
	switch {
	case change.Action == Replace && r.Address.Kind == graph.KindImage:
		change.Action = Update
	case change.Action != "":
	case r.Address.Kind == graph.KindContainer && !have.fulfilled(r.Spec.(*graph.Container)):
		change.Action, change.Reason = Start, "it is "+have.State
		if have.State == "exited" {
			change.Reason = fmt.Sprintf("it has ended with status %d", have.ExitCode)
		}
	default:
		m.plan.Unchanged++
		return nil
	}
	m.plan.Changes = append(m.plan.Changes, change)
	return nil
}

// bases fills in which images a built one begins with, as far as the engine has them. A base that is
// gone is no reason to build again; one that this environment builds is followed as a resource.
func (m *maker) bases(image *graph.Image, have *Existing) error {
	if image.Build == nil {
		return nil
	}
	image.Bases = nil
	for _, ref := range image.Build.Bases {
		if BuiltBy(m.graph, ref) != nil {
			continue
		}
		id, err := m.have.imageID(m.ctx, m.engine, ref)
		if err != nil {
			return err
		}
		if id == "" && have != nil {
			if known, ok := have.Wanted["bases"].(map[string]any); ok {
				id, _ = known[ref].(string)
			}
		}
		if id == "" {
			continue
		}
		if image.Bases == nil {
			image.Bases = map[string]string{}
		}
		image.Bases[ref] = id
	}
	return nil
}

// drift adds what is different in the engine though it was wanted the same.
func (m *maker) drift(r *graph.Resource, have *Existing, change *Change) error {
	switch spec := r.Spec.(type) {
	case *graph.Image:
		if missing := have.missingTags(spec.Tags); len(missing) > 0 && len(change.Attributes) == 0 {
			change.Attributes = append(change.Attributes, Difference{Attribute: "tags", Old: anyList(have.Tags), New: anyList(spec.Tags)})
		}
	case *graph.Container:
		built := BuiltBy(m.graph, spec.Image)
		if built != nil && m.plan.Find(built.Address) != nil {
			return nil // follows says so
		}
		id, err := m.have.imageID(m.ctx, m.engine, spec.Image)
		if err != nil || id == "" || have.ImageID == "" || id == have.ImageID {
			return err
		}
		for _, d := range change.Attributes {
			if d.Attribute == "image" {
				return nil
			}
		}
		change.Attributes = append(change.Attributes, Difference{Attribute: "image", Old: spec.Image + " " + short(have.ImageID), New: spec.Image + " " + short(id)})
	}
	return nil
}

// follows finds a change of something that the resource is made with, so that it must be made again.
// What it merely waits for does not count.
func (m *maker) follows(r *graph.Resource) *Change {
	for _, a := range MadeWith(m.graph, r) {
		if c := m.plan.Find(a); c != nil {
			return c
		}
	}
	return nil
}

// MadeWith lists the resources that are part of another: its image, networks, volumes, and those
// whose fields it was given.
func MadeWith(g *graph.Graph, r *graph.Resource) []graph.Address {
	var out []graph.Address
	switch spec := r.Spec.(type) {
	case *graph.Image:
		if spec.Build == nil {
			return nil
		}
		for _, ref := range spec.Build.Bases {
			if built := BuiltBy(g, ref); built != nil && built != r {
				out = append(out, built.Address)
			}
		}
	case *graph.Container:
		if built := BuiltBy(g, spec.Image); built != nil {
			out = append(out, built.Address)
		}
		out = append(out, spec.Networks...)
		for _, mount := range spec.Mounts {
			if !mount.Volume.IsZero() {
				out = append(out, mount.Volume)
			}
		}
		for _, u := range spec.Unknowns() {
			if of := u.Of(); !of.IsZero() {
				out = append(out, of)
			}
		}
	}
	return out
}

// BuiltBy is the image resource that makes a reference, or nil.
func BuiltBy(g *graph.Graph, ref string) *graph.Resource {
	for _, r := range g.Resources {
		if i, ok := r.Spec.(*graph.Image); ok && slices.Contains(i.Tags, ref) {
			return r
		}
	}
	return nil
}

// Subject is a resource as errors name it: container "db".
func Subject(a graph.Address) string { return fmt.Sprintf("%s %q", a.Kind, a.Name) }

// short is an ID as people compare it.
func short(id string) string {
	if len(id) > 19 && id[:7] == "sha256:" {
		return id[:19]
	}
	return id
}

func anyList(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}
