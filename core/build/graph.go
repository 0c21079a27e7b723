package build

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Bounds of a graph: far above what scripts make, far below what would hurt.
const (
	maxNodes   = 10_000
	maxTags    = 100
	maxStrings = 4096 // arguments, variables, mounts of one node
)

// check validates a graph from outside and returns which nodes its target needs.
func check(g wire.BuildGraph, locals map[string]string) ([]bool, error) {
	if len(g.Nodes) > maxNodes {
		return nil, fault.New(fault.Invalid, "build graph: %d nodes: expected at most %d", len(g.Nodes), maxNodes)
	}
	if g.Target < 0 || g.Target >= len(g.Nodes) {
		return nil, fault.New(fault.Invalid, "build graph: target %d: expected the index of one of %d nodes", g.Target, len(g.Nodes))
	}
	if len(g.Tags) > maxTags {
		return nil, fault.New(fault.Invalid, "build graph: %d tags: expected at most %d", len(g.Tags), maxTags)
	}
	if err := checkProxies(g.Proxies); err != nil {
		return nil, err
	}
	for i, n := range g.Nodes {
		if err := checkNode(g, i, locals); err != nil {
			return nil, located(n, err)
		}
	}
	if g.Nodes[g.Target].Op == "local" {
		return nil, located(g.Nodes[g.Target], fault.New(fault.Invalid, "the target of a build is local files: expected an image, such as scratch() with a copy of them"))
	}
	needed := make([]bool, len(g.Nodes))
	needed[g.Target] = true
	for i := g.Target; i >= 0; i-- { // inputs are below their users
		if needed[i] {
			for _, in := range inputs(g.Nodes[i]) {
				needed[in] = true
			}
		}
	}
	return needed, nil
}

// inputs are the nodes that a node works on; the first is what its result stands on.
func inputs(n wire.BuildNode) []int {
	switch {
	case n.Run != nil:
		in := []int{n.Run.Base}
		for _, m := range n.Run.Mounts {
			if m.Input != nil {
				in = append(in, *m.Input)
			}
		}
		return in
	case n.Copy != nil:
		return []int{n.Copy.Base, n.Copy.From}
	case n.Config != nil:
		return []int{n.Config.Base}
	}
	return nil
}

func checkNode(g wire.BuildGraph, i int, locals map[string]string) error {
	n := g.Nodes[i]
	set := map[string]bool{
		"scratch": true, "image": n.Image != nil, "local": n.Local != nil,
		"run": n.Run != nil, "copy": n.Copy != nil, "config": n.Config != nil,
	}
	given, known := set[n.Op]
	if !known {
		names := []string{"scratch", "image", "local", "run", "copy", "config"}
		return &fault.Field{Field: "op", Given: n.Op, Expected: "one of " + strings.Join(names, ", "), Nearest: fault.Nearest(n.Op, names)}
	}
	for op, has := range set {
		if op != "scratch" && has != (op == n.Op) {
			return fault.New(fault.Invalid, "node %d: op %s: expected the field %s and no other", i, n.Op, n.Op)
		}
	}
	if !given {
		return fault.New(fault.Invalid, "node %d: op %s: expected the field %s", i, n.Op, n.Op)
	}
	for at, in := range inputs(n) {
		if in < 0 || in >= i {
			return fault.New(fault.Invalid, "node %d: input %d: expected the index of a node before it", i, in)
		}
		if at == 0 && g.Nodes[in].Op == "local" {
			return fault.New(fault.Invalid, "%s: its base is local files: expected an image", n.Op)
		}
	}
	switch n.Op {
	case "image":
		if n.Image.Ref == "" {
			return &fault.Field{Field: "image", Given: "", Expected: "the name of an image"}
		}
	case "local":
		if locals[n.Local.Name] == "" {
			return &fault.Field{Field: "local", Given: n.Local.Name, Expected: "a source that was sent with the build"}
		}
	case "run":
		return checkRun(n.Run)
	case "copy":
		return checkCopy(n.Copy)
	case "config":
		return checkConfig(n.Config)
	}
	return nil
}

func checkRun(r *wire.BuildRun) error {
	if len(r.Args) == 0 || r.Args[0] == "" {
		return &fault.Field{Field: "run", Given: "", Expected: "a command"}
	}
	if len(r.Args) > maxStrings || len(r.Env) > maxStrings || len(r.Mounts) > maxStrings {
		return fault.New(fault.Invalid, "run: more than %d arguments, variables or mounts", maxStrings)
	}
	for _, a := range r.Args {
		if strings.ContainsRune(a, 0) {
			return fault.New(fault.Invalid, "run: an argument has a zero byte")
		}
	}
	if err := checkEnv(r.Env); err != nil {
		return err
	}
	if strings.ContainsRune(r.Cwd, 0) {
		return fault.New(fault.Invalid, "cwd has a zero byte")
	}
	for _, m := range r.Mounts {
		if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" || strings.ContainsRune(m.Target+m.Path, 0) {
			return &fault.Field{Field: "mount target", Given: m.Target, Expected: "an absolute path other than /"}
		}
		if (m.Input == nil) == (m.Cache == "") {
			return fault.New(fault.Invalid, "mount %s: expected either an input or the name of a cache", m.Target)
		}
		if len(m.Cache) > 255 {
			return fault.New(fault.Invalid, "mount %s: the name of its cache is longer than 255 bytes", m.Target)
		}
	}
	return nil
}

// proxyVariables are those that docker build lets in although no step is keyed by them.
var proxyVariables = []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"}

func checkProxies(proxies map[string]string) error {
	for name, value := range proxies {
		if upper := strings.ToUpper(name); !slices.Contains(proxyVariables, upper) || name != upper && name != strings.ToLower(name) {
			return &fault.Field{Field: "proxies", Given: name, Expected: "one of " + strings.Join(proxyVariables, ", ") + ", in either spelling"}
		}
		if strings.ContainsRune(value, 0) {
			return fault.New(fault.Invalid, "proxies: %s has a zero byte", name)
		}
	}
	return nil
}

func checkEnv(env map[string]string) error {
	for k, v := range env {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			return &fault.Field{Field: "env", Given: k, Expected: "a name without =, and no zero bytes"}
		}
	}
	return nil
}

func checkCopy(c *wire.BuildCopy) error {
	if c.Dest == "" || strings.ContainsRune(c.Dest+c.Source, 0) {
		return &fault.Field{Field: "copy destination", Given: c.Dest, Expected: "a path"}
	}
	if c.Mode != "" {
		if _, err := strconv.ParseUint(c.Mode, 8, 12); err != nil {
			return &fault.Field{Field: "mode", Given: c.Mode, Expected: "an octal number such as 0644"}
		}
	}
	return nil
}

// located puts the place of the script that made the node before an error.
func located(n wire.BuildNode, err error) error {
	if err == nil || n.Position == "" {
		return err
	}
	return fmt.Errorf("%s: %w", printable(n.Position, 300), err)
}

// printable cuts a text from outside down to one line of at most limit bytes.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r == 0x7f:
			return -1
		}
		return r
	}, s)
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}
