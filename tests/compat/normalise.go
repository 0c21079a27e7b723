package compat

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// volatile is what differs between two runs of the same engine.
var volatile = []norm{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "<TIME>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?( [+-]\d{4} [A-Z]+)?`), "<TIME>"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "<ID>"},
	{regexp.MustCompile(`\b(\d+|a|an|About an?|Less than a) (second|minute|hour)s?\b`), "<WHILE>"},
	{regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`), "<MAC>"},
	{regexp.MustCompile(`(\.Pid) = [1-9]\d*$`), "$1 = <PID>"},
	{regexp.MustCompile(`(\.Created) = \d{10}$`), "$1 = <TIME>"},
	{regexp.MustCompile(`"/[a-z]+_[a-z]+"`), `"/<NAME>"`},
	{regexp.MustCompile(` +$`), ""},
	{regexp.MustCompile(` {2,}`), "  "},
}

// short is an id of twelve digits: a number of twelve digits or a word of twelve letters is not one.
var short = regexp.MustCompile(`\b[0-9a-f]{12}\b`)

// normalise returns the lines of an output that can be compared.
func normalise(output, root string, rules []norm) []string {
	output = strings.ReplaceAll(output, root, "<ROOT>")
	var lines []string
	for _, line := range unfold(output) {
		for _, rule := range volatile {
			line = rule.pattern.ReplaceAllString(line, rule.text)
		}
		line = short.ReplaceAllStringFunc(line, func(id string) string {
			if strings.ContainsAny(id, "0123456789") && strings.ContainsAny(id, "abcdef") {
				return "<id>"
			}
			return id
		})
		was := line
		for _, rule := range rules {
			line = rule.pattern.ReplaceAllString(line, rule.text)
		}
		if line != "" || was == "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// unfold splits an output into lines. What is JSON becomes a line for each value, with its path; the
// line of a raw request's status stays as it is.
func unfold(output string) []string {
	output = strings.TrimSuffix(output, "\n")
	if output == "" {
		return nil
	}
	body, status := output, ""
	if i := strings.LastIndex(output, "\nHTTP "); i >= 0 {
		body, status = strings.TrimSuffix(output[:i], "\n"), output[i+1:]
	}
	var lines []string
	if values := flatten(body); values != nil {
		lines = values
	} else {
		for line := range strings.SplitSeq(body, "\n") {
			if values := flatten(line); values != nil {
				lines = append(lines, values...)
			} else {
				lines = append(lines, line)
			}
		}
	}
	if status != "" {
		lines = append(lines, status)
	}
	return lines
}

// flatten returns the values of a JSON object or list as "PATH = VALUE", or nil if it is none.
func flatten(text string) []string {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") {
		return nil
	}
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return nil
	}
	return paths("", value)
}

func paths(path string, value any) []string {
	var lines []string
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			return []string{path + " = {}"}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			lines = append(lines, paths(path+"."+key, v[key])...)
		}
	case []any:
		if len(v) == 0 {
			return []string{path + " = []"}
		}
		for i, element := range v {
			lines = append(lines, paths(fmt.Sprintf("%s[%d]", path, i), element)...)
		}
	default:
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false) // "<ROOT>" stays as it is
		if err := e.Encode(v); err != nil {
			return nil
		}
		lines = append(lines, path+" = "+strings.TrimSpace(b.String()))
	}
	return lines
}
