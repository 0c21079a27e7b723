package systemd

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// amount is the property of a file of v2 that is one number or "max"; "" when systemd has none.
func amount(file string) string {
	switch file {
	case "memory.high":
		return "MemoryHigh"
	case "memory.low":
		return "MemoryLow"
	case "memory.min":
		return "MemoryMin"
	case "memory.max":
		return "MemoryMax"
	case "memory.swap.max":
		return "MemorySwapMax"
	case "pids.max":
		return "TasksMax"
	}
	return ""
}

// unified translates linux.resources.unified, which names files of v2 with what is to be written.
func (t *translation) unified(files map[string]string) {
	if !t.Unified {
		return // the plan of the files refuses it
	}
	for _, key := range slices.Sorted(maps.Keys(files)) {
		field, value := "linux.resources.unified."+key, strings.TrimSpace(files[key])
		idle := strings.TrimSpace(files["cpu.idle"]) == "1" && t.Version >= sinceIdle
		switch key {
		case "cpu.idle":
			if idle { // that it is not idle cannot be told
				t.put("CPUWeight", uint64(0))
			}
		case "cpu.weight":
			if n, ok := t.number(field, value); ok && !idle {
				t.put("CPUWeight", n)
			}
		case "cpu.max":
			t.cpuMax(field, value)
		case "cpuset.cpus":
			t.cpuset(field, "AllowedCPUs", value)
		case "cpuset.mems":
			t.cpuset(field, "AllowedMemoryNodes", value)
		default:
			name := amount(key)
			if name == "" {
				continue
			}
			n, ok := uint64(math.MaxUint64), true
			if value != "max" {
				n, ok = t.number(field, value)
			}
			if key == "pids.max" {
				n = max(n, 1) // systemd takes no 0
			}
			if ok {
				t.put(name, n)
			}
		}
	}
}

func (t *translation) number(field, value string) (uint64, bool) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		t.fail(&fault.Field{Field: field, Given: short(value), Expected: "a number"})
	}
	return n, err == nil
}

// cpuMax reads "QUOTA [PERIOD]", where QUOTA may be "max".
func (t *translation) cpuMax(field, value string) {
	parts := strings.Fields(value)
	bad := &fault.Field{Field: field, Given: short(value), Expected: "a quota or max, and perhaps a period, such as 50000 100000"}
	if len(parts) < 1 || len(parts) > 2 {
		t.fail(bad)
		return
	}
	var quota int64
	var period uint64
	var err error
	if parts[0] != "max" {
		if quota, err = strconv.ParseInt(parts[0], 10, 64); err != nil || quota <= 0 {
			t.fail(bad)
			return
		}
	}
	if len(parts) == 2 {
		if period, err = strconv.ParseUint(parts[1], 10, 64); err != nil || period == 0 {
			t.fail(bad)
			return
		}
	}
	t.bandwidth(field, quota, period)
}

// once are the properties that can be given only when the unit is made.
func (d Dialect) once(files map[string]string) ([]Property, error) {
	value, ok := files["memory.oom.group"]
	if !ok || d.Version < sinceOOMPolicy {
		return nil, nil
	}
	switch strings.TrimSpace(value) {
	case "0":
		return []Property{property("OOMPolicy", "continue")}, nil
	case "1":
		return []Property{property("OOMPolicy", "kill")}, nil
	}
	return nil, &fault.Field{Field: "linux.resources.unified.memory.oom.group", Given: short(value), Expected: "0 or 1"}
}
