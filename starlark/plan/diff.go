package plan

import (
	"fmt"
	"reflect"
	"sort"
)

// Difference is one attribute that is wanted otherwise. Old is nil for one that was not there, New
// for one that goes.
type Difference struct {
	Attribute string `json:"attribute"` // memory, or env["A"]
	Old       any    `json:"old,omitempty"`
	New       any    `json:"new,omitempty"`
}

// Compare lists the differences of two canonical specs, sorted. Of dicts the keys are compared, lists
// as a whole, because their order has a meaning.
func Compare(old, wanted map[string]any) []Difference {
	var out []Difference
	for _, name := range keys(old, wanted) {
		o, w := old[name], wanted[name]
		od, oldIsDict := o.(map[string]any)
		wd, wantedIsDict := w.(map[string]any)
		if (oldIsDict || o == nil) && (wantedIsDict || w == nil) && (oldIsDict || wantedIsDict) && deep(name) {
			for _, key := range keys(od, wd) {
				if !reflect.DeepEqual(od[key], wd[key]) {
					out = append(out, Difference{fmt.Sprintf("%s[%q]", name, key), od[key], wd[key]})
				}
			}
			continue
		}
		if !reflect.DeepEqual(o, w) {
			out = append(out, Difference{name, o, w})
		}
	}
	return out
}

// deep tells a dict that the script wrote from an object of ours, which is one value.
func deep(name string) bool { return name != "health" }

func keys(a, b map[string]any) []string {
	var out []string
	for k := range a {
		out = append(out, k)
	}
	for k := range b {
		if _, both := a[k]; !both {
			out = append(out, k)
		}
	}
	sort.Strings(out)
	return out
}
