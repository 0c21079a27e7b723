package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/starlark/graph"
)

var marks = map[Action]string{Create: "+", Update: "~", Replace: "±", Start: ">", Delete: "-"}

// Print writes the plan for people. An empty one is one line that says "no changes".
func (p *Plan) Print(w io.Writer) {
	if p.Empty() {
		fmt.Fprintf(w, "%s: %s\n", p.Env, p.Summary())
		return
	}
	for _, c := range p.Changes {
		fmt.Fprintf(w, "%s %s", marks[c.Action], c.Address)
		switch {
		case c.Reason != "":
			fmt.Fprintf(w, ": %s: %s", c.Action, c.Reason)
		default:
			fmt.Fprintf(w, ": %s", c.Action)
		}
		if c.At != "" {
			fmt.Fprintf(w, "  (%s)", c.At)
		}
		if c.Action != Create && c.Action != Start && c.Address.Kind == graph.KindVolume {
			fmt.Fprint(w, "  its data is lost")
		}
		fmt.Fprintln(w)
		for _, d := range c.Attributes {
			fmt.Fprintf(w, "    %s\n", d.text(c.Action == Create))
		}
	}
	fmt.Fprintf(w, "%s: %s\n", p.Env, p.Summary())
}

// Summary is "1 to create, 2 to replace".
func (p *Plan) Summary() string {
	var parts []string
	for _, a := range []Action{Create, Update, Replace, Start, Delete} {
		n := 0
		for _, c := range p.Changes {
			if c.Action == a {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d to %s", n, a))
		}
	}
	if len(parts) == 0 {
		return fmt.Sprintf("no changes (%s as wanted)", count(p.Unchanged))
	}
	if p.Unchanged > 0 {
		parts = append(parts, fmt.Sprintf("%d as wanted", p.Unchanged))
	}
	return strings.Join(parts, ", ")
}

func count(n int) string {
	if n == 1 {
		return "1 resource"
	}
	return fmt.Sprintf("%d resources", n)
}

func (d Difference) text(create bool) string {
	name, _, _ := strings.Cut(d.Attribute, "[")
	switch {
	case create:
		return fmt.Sprintf("%s = %s", d.Attribute, show(name, d.New))
	case d.Old == nil:
		return fmt.Sprintf("%s: (not set) -> %s", d.Attribute, show(name, d.New))
	case d.New == nil:
		return fmt.Sprintf("%s: %s -> (not set)", d.Attribute, show(name, d.Old))
	}
	return fmt.Sprintf("%s: %s -> %s", d.Attribute, show(name, d.Old), show(name, d.New))
}

// show is a value as a script would write it, where that is shorter than the normalised one.
func show(name string, v any) string {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Int64()
		if err != nil {
			return v.String()
		}
		switch name {
		case "memory", "shm_size":
			return strconv.Quote(size(n))
		case "cpus":
			return strconv.FormatFloat(float64(n)/1e9, 'f', -1, 64)
		case "stop_timeout":
			return strconv.Quote((time.Duration(n) * time.Second).String())
		}
		return v.String()
	case string:
		if name == "recipe" || name == "bases" {
			return short(v)
		}
		return strconv.Quote(clip(v))
	case bool:
		if v {
			return "True"
		}
		return "False"
	case map[string]any:
		if name == "health" {
			return probe(v)
		}
		if as, ok := v["as"].(string); ok { // an unknown or a secret
			if f, ok := v["fingerprint"].(string); ok {
				return as + " (value " + f + ")"
			}
			return as
		}
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = show("", e)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return clip(graph.CanonicalJSON(v))
}

// probe is a health probe as a script would write it.
func probe(health map[string]any) string {
	test, _ := health["test"].([]any)
	text := func(i int) string {
		s, _ := test[i].(string)
		return s
	}
	var parts []string
	var kind string
	switch {
	case len(test) > 0 && text(0) == "NONE":
		return "probe.none()"
	case len(test) == 2 && text(0) == "CMD-SHELL":
		kind, parts = "probe.shell", []string{show("", test[1])}
	case len(test) > 1 && text(0) == "CMD":
		kind, parts = "probe.exec", []string{show("", test[1:])}
	default:
		return clip(graph.CanonicalJSON(health))
	}
	for _, name := range []string{"interval", "timeout", "start_period", "start_interval"} {
		if n, ok := health[name].(json.Number); ok {
			if d, err := n.Int64(); err == nil {
				parts = append(parts, fmt.Sprintf("%s = %q", name, time.Duration(d)))
			}
		}
	}
	if n, ok := health["retries"].(json.Number); ok {
		parts = append(parts, "retries = "+n.String())
	}
	return kind + "(" + strings.Join(parts, ", ") + ")"
}

// size is a number of bytes with the largest unit that divides it.
func size(n int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"t", 1 << 40}, {"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}} {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func clip(s string) string {
	const longest = 200
	if r := []rune(s); len(r) > longest {
		return string(r[:longest]) + "..."
	}
	return s
}
