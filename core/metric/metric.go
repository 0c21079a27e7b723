// Package metric counts and measures, and writes what it has in the text format that Prometheus reads
// (https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4).
//
//	registry := metric.NewRegistry()
//	started := registry.Histogram("engine_daemon_container_actions_seconds", "...", metric.Seconds, "action")
//	started.Observe(0.1, "start")
//	registry.Write(w)
//
// The engine has some twenty numbers: a client library with its own collectors, registries and protocol
// buffers would be larger than the daemon's other dependencies.
package metric

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// ContentType is that of what Write writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Seconds are the upper bounds of a histogram of times: from a millisecond, what the engine's work
// takes, to what pulling an image may take.
var Seconds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300}

// Registry has metrics. Its methods may be called in parallel.
type Registry struct {
	mu   sync.Mutex
	list []metric
}

// metric is one name with its values.
type metric interface {
	head() head
	write(w *bufio.Writer)
}

type head struct{ name, kind, help string }

// NewRegistry returns one without metrics.
func NewRegistry() *Registry { return &Registry{} }

func (r *Registry) add(m metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, m)
}

// Write writes every metric, in the order of their names.
func (r *Registry) Write(w io.Writer) error {
	r.mu.Lock()
	list := slices.SortedFunc(slices.Values(r.list), func(a, b metric) int { return cmp.Compare(a.head().name, b.head().name) })
	r.mu.Unlock()
	out := bufio.NewWriter(w)
	for _, m := range list {
		h := m.head()
		fmt.Fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", h.name, strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(h.help), h.name, h.kind)
		m.write(out)
	}
	return out.Flush()
}

// Value is one value of a Func with the values of its labels.
type Value struct {
	Labels []string
	Value  float64
}

// Func adds a metric whose values are asked for when it is written; kind is "gauge" or "counter".
func (r *Registry) Func(name, kind, help string, labels []string, values func() []Value) {
	r.add(&function{head{name, kind, help}, labels, values})
}

type function struct {
	h      head
	labels []string
	values func() []Value
}

func (f *function) head() head { return f.h }

func (f *function) write(w *bufio.Writer) {
	for _, v := range f.values() {
		line(w, f.h.name, f.labels, v.Labels, v.Value)
	}
}

// Counter is a number that only grows, by the values of its labels.
type Counter struct {
	h      head
	labels []string

	mu     sync.Mutex
	values map[string]float64 // by label values, joined
}

// Counter adds a counter.
func (r *Registry) Counter(name, help string, labels ...string) *Counter {
	c := &Counter{h: head{name, "counter", help}, labels: labels, values: map[string]float64{}}
	if len(labels) == 0 {
		c.values[""] = 0
	}
	r.add(c)
	return c
}

// Add adds n to the counter of these label values.
func (c *Counter) Add(n float64, labels ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values[strings.Join(labels, separator)] += n
}

func (c *Counter) head() head { return c.h }

func (c *Counter) write(w *bufio.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(c.values)) {
		line(w, c.h.name, c.labels, split(key), c.values[key])
	}
}

// Histogram counts measurements by how large they are, by the values of its labels.
type Histogram struct {
	h      head
	bounds []float64
	labels []string

	mu     sync.Mutex
	values map[string]*distribution
}

type distribution struct {
	counts []uint64 // of each bound, and of what is above all
	sum    float64
}

// Histogram adds a histogram with the upper bounds, which rise.
func (r *Registry) Histogram(name, help string, bounds []float64, labels ...string) *Histogram {
	h := &Histogram{h: head{name, "histogram", help}, bounds: bounds, labels: labels, values: map[string]*distribution{}}
	r.add(h)
	return h
}

// Observe adds a measurement.
func (h *Histogram) Observe(v float64, labels ...string) {
	key := strings.Join(labels, separator)
	i, _ := slices.BinarySearch(h.bounds, v) // a bound includes itself
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.values[key]
	if d == nil {
		d = &distribution{counts: make([]uint64, len(h.bounds)+1)}
		h.values[key] = d
	}
	d.counts[i]++
	d.sum += v
}

func (h *Histogram) head() head { return h.h }

func (h *Histogram) write(w *bufio.Writer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := append(slices.Clone(h.labels), "le")
	for _, key := range slices.Sorted(maps.Keys(h.values)) {
		d, values, total := h.values[key], split(key), uint64(0)
		for i, n := range d.counts {
			total += n
			bound := "+Inf"
			if i < len(h.bounds) {
				bound = number(h.bounds[i])
			}
			line(w, h.h.name+"_bucket", names, append(slices.Clone(values), bound), float64(total))
		}
		line(w, h.h.name+"_sum", h.labels, values, d.sum)
		line(w, h.h.name+"_count", h.labels, values, float64(total))
	}
}

// separator stands between label values in a key; it is in no UTF-8 text.
const separator = "\xff"

func split(key string) []string {
	if key == "" {
		return nil
	}
	return strings.Split(key, separator)
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// line writes one; the writer keeps its error for Flush.
func line(w *bufio.Writer, name string, labels, values []string, v float64) {
	var pairs []string
	for i, l := range labels[:min(len(labels), len(values))] {
		pairs = append(pairs, l+`="`+escape.Replace(values[i])+`"`)
	}
	if len(pairs) > 0 {
		name += "{" + strings.Join(pairs, ",") + "}"
	}
	fmt.Fprintln(w, name, number(v))
}
