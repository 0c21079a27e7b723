package recipe

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// maxSteps bounds a graph.
const maxSteps = 10_000

// assembler numbers the nodes that a target needs. Steps that say the same are one.
type assembler struct {
	build  *Build
	index  map[*node]int
	same   map[string]int    // by the step's JSON
	locals map[string]*Local // by name
	bases  map[string]bool
}

// assemble makes the graph of a target.
func assemble(target *node) (*Build, error) {
	a := &assembler{build: &Build{}, index: map[*node]int{}, same: map[string]int{}, locals: map[string]*Local{}, bases: map[string]bool{}}
	i, err := a.add(target)
	if err != nil {
		return nil, err
	}
	a.build.Graph.Target = i
	for ref := range a.bases {
		a.build.Bases = append(a.build.Bases, ref)
	}
	sort.Strings(a.build.Bases)
	a.build.Digest = a.digest()
	return a.build, nil
}

// add numbers a node after those it needs. Chains of bases are walked in a loop, so that only the
// nesting of copies and mounts is as deep as the recursion.
func (a *assembler) add(n *node) (int, error) {
	var chain []*node
	for at := n; at != nil; at = at.base {
		if _, ok := a.index[at]; ok {
			break
		}
		if chain = append(chain, at); len(chain)+len(a.index) > maxSteps {
			return 0, fault.New(fault.Invalid, "expected at most %d steps", maxSteps)
		}
	}
	for i := len(chain) - 1; i >= 0; i-- {
		if err := a.one(chain[i]); err != nil {
			return 0, err
		}
	}
	return a.index[n], nil
}

func (a *assembler) one(n *node) error {
	step := n.step
	var err error
	switch {
	case n.local != nil:
		step.Local = &wire.BuildLocal{Name: a.local(n.local)}
	case step.Image != nil:
		a.bases[step.Image.Ref] = true
	case step.Run != nil:
		run := *step.Run
		run.Base, run.Mounts = a.index[n.base], append([]wire.BuildMount(nil), run.Mounts...)
		for i, input := range n.inputs {
			if input == nil {
				continue
			}
			at := 0
			if at, err = a.add(input); err != nil {
				return err
			}
			run.Mounts[i].Input = &at
		}
		step.Run = &run
	case step.Copy != nil:
		cp := *step.Copy
		cp.Base = a.index[n.base]
		if cp.From, err = a.add(n.from); err != nil {
			return err
		}
		step.Copy = &cp
	case step.Config != nil:
		config := *step.Config
		config.Base = a.index[n.base]
		step.Config = &config
	}
	data, err := json.Marshal(step)
	if err != nil {
		return err
	}
	i, ok := a.same[string(data)]
	if !ok {
		i = len(a.build.Graph.Nodes)
		a.same[string(data)] = i
		step.Position = n.site.String()
		a.build.Graph.Nodes = append(a.build.Graph.Nodes, step)
	}
	a.index[n] = i
	return nil
}

// local gives local files a name in the graph: the folder's, with a number when it is taken.
func (a *assembler) local(l *Local) string {
	for i := 1; ; i++ {
		name := l.name
		if i > 1 {
			name = fmt.Sprintf("%s-%d", l.name, i)
		}
		known, taken := a.locals[name]
		if !taken {
			a.locals[name] = l
			sent := *l
			sent.Name = name
			a.build.Locals = append(a.build.Locals, &sent)
			return name
		}
		if known.Digest == l.Digest && known.file == l.file {
			return name
		}
	}
}

// digest is over what the graph does, not where it is written.
func (a *assembler) digest() string {
	h := sha256.New()
	e := json.NewEncoder(h)
	for _, n := range a.build.Graph.Nodes {
		n.Position = ""
		if err := e.Encode(n); err != nil {
			panic(fmt.Sprintf("recipe: a step that JSON cannot say: %v", err)) // our own types only
		}
	}
	for _, l := range a.build.Locals {
		fmt.Fprintf(h, "%s %s\n", l.Name, l.Digest)
	}
	fmt.Fprintln(h, a.build.Graph.Target)
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}
