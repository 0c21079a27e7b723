package arg

import (
	"fmt"
	"strings"
)

// Description is a declaration as JSON, for editors.
type Description struct {
	Name       string             `json:"name"`
	Of         string             `json:"of,omitempty"`
	Doc        string             `json:"doc"`
	Example    string             `json:"example,omitempty"`
	Returns    string             `json:"returns,omitempty"`
	Positional int                `json:"positional"`
	Params     []ParamDescription `json:"params"`
}

// ParamDescription is one argument of a Description.
type ParamDescription struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Required bool     `json:"required,omitempty"`
	Default  string   `json:"default,omitempty"`
	Choices  []string `json:"choices,omitempty"`
	Doc      string   `json:"doc,omitempty"`
}

// Describe is the declaration as data.
func (f Func) Describe() Description {
	d := Description{Name: f.Name, Of: f.Of, Doc: f.Doc, Example: f.Example, Returns: f.Returns, Positional: f.Positional, Params: []ParamDescription{}}
	for _, p := range f.Params {
		d.Params = append(d.Params, ParamDescription{p.Name, p.Type.Name, p.Required, p.shows(), p.Type.Choices, p.Doc})
	}
	if f.Rest != nil {
		d.Params = append(d.Params, ParamDescription{Name: "*" + f.Rest.Name, Type: f.Rest.Type.Name, Doc: f.Rest.Doc})
	}
	return d
}

func (p Param) shows() string {
	switch {
	case p.Shows != "":
		return p.Shows
	case p.Default == nil || p.Required:
		return ""
	case p.Default == false:
		return "False"
	case p.Default == true:
		return "True"
	}
	if s, ok := p.Default.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprint(p.Default)
}

// Signature is the call as one line: container(name, image, command = None, ...).
func (f Func) Signature() string {
	var parts []string
	for i, p := range f.Params {
		switch {
		case p.Required && i < f.Positional:
			parts = append(parts, p.Name)
		case p.Required:
			parts = append(parts, p.Name+" = ...")
		case p.shows() != "":
			parts = append(parts, p.Name+" = "+p.shows())
		default:
			parts = append(parts, p.Name+" = None")
		}
	}
	if f.Rest != nil {
		parts = append(parts, "*"+f.Rest.Name)
	}
	name := f.Name
	if f.Of != "" {
		name = f.Of + "." + f.Name
	}
	if s := name + "(" + strings.Join(parts, ", ") + ")"; len(s) <= 110 {
		return s
	}
	return name + "(" + strings.Join(parts[:max(1, f.Positional)], ", ") + ", ...)"
}

// Markdown is the declaration as a section of the reference.
func (f Func) Markdown() string {
	var b strings.Builder
	name := f.Name
	if f.Of != "" {
		name = f.Of + "." + f.Name
	}
	fmt.Fprintf(&b, "### %s\n\n```python\n%s", name, f.Signature())
	if f.Returns != "" {
		fmt.Fprintf(&b, "  # %s", f.Returns)
	}
	fmt.Fprintf(&b, "\n```\n\n%s\n", f.Doc)
	if f.Example != "" {
		fmt.Fprintf(&b, "\n```python\n%s\n```\n", strings.TrimSpace(f.Example))
	}
	d := f.Describe()
	if len(d.Params) == 0 {
		return b.String()
	}
	b.WriteString("\n| argument | type | default | |\n|---|---|---|---|\n")
	for _, p := range d.Params {
		def := p.Default
		if p.Required {
			def = "required"
		} else if def != "" {
			def = "`" + def + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.Name, cell(p.Type), cell(def), cell(p.Doc))
	}
	return b.String()
}

func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "\n", " ")
}
