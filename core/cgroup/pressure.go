package cgroup

import (
	"os"
	"strconv"
	"strings"
)

// Pressure is how long tasks waited for a resource (Documentation/accounting/psi.rst): some of them,
// or all at once.
type Pressure struct {
	Some Stall `json:"some"`
	Full Stall `json:"full"`
}

// Stall are percentages of the last 10, 60 and 300 seconds, and microseconds since the beginning.
type Stall struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// HugetlbStats are sizes in bytes.
type HugetlbStats struct {
	Usage   uint64 `json:"usage"`
	Max     uint64 `json:"max"`     // the highest usage seen; 0 where the kernel does not tell
	Failcnt uint64 `json:"failcnt"` // times the limit was hit
}

// pressure reads a file such as cpu.pressure; nil where the kernel does not measure.
func pressure(name string) *Pressure {
	text, err := readFile(name)
	if err != nil {
		return nil // not compiled in, or off (EOPNOTSUPP)
	}
	p := &Pressure{}
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(line, " ")
		to := map[string]*Stall{"some": &p.Some, "full": &p.Full}[kind]
		if to == nil {
			continue
		}
		for f := range strings.FieldsSeq(rest) {
			key, value, _ := strings.Cut(f, "=")
			n, _ := strconv.ParseFloat(value, 64)
			switch key {
			case "avg10":
				to.Avg10 = n
			case "avg60":
				to.Avg60 = n
			case "avg300":
				to.Avg300 = n
			case "total":
				to.Total, _ = strconv.ParseUint(value, 10, 64)
			}
		}
	}
	return p
}

// hugetlb reads the counters of each size of huge pages.
func (r *reader) hugetlb(h *hierarchy) map[string]HugetlbStats {
	dir := h.mount + r.m.path
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // it has not joined
	}
	stats := map[string]HugetlbStats{}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), "hugetlb.")
		size, file, _ := strings.Cut(rest, ".")
		at := dir + "/hugetlb." + size
		switch {
		case !ok:
		case h.unified && file == "current":
			stats[size] = HugetlbStats{Usage: r.number(at + ".current"), Failcnt: r.numbers(at + ".events")["max"]}
		case !h.unified && file == "usage_in_bytes":
			stats[size] = HugetlbStats{Usage: r.number(at + ".usage_in_bytes"), Max: r.number(at + ".max_usage_in_bytes"), Failcnt: r.number(at + ".failcnt")}
		}
	}
	return stats
}
