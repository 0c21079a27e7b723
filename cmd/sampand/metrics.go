package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/metric"
	"github.com/sampan-project/sampan/core/operation"
	"github.com/sampan-project/sampan/core/wire"
)

// metrics are the engine's numbers: dockerd's under dockerd's names (engine_daemon_...), ours as
// sampan_..., and those of the process as everybody calls them.
type metrics struct {
	all        *metric.Registry
	containers *metric.Histogram // by action
	operations *metric.Histogram // by noun, verb and outcome
	checks     *metric.Counter
	failed     *metric.Counter
	check      *metric.Histogram
	events     *metric.Counter
}

func newMetrics() *metrics {
	r := metric.NewRegistry()
	return &metrics{
		all:        r,
		containers: r.Histogram("engine_daemon_container_actions_seconds", "The number of seconds it takes to process each container action", metric.Seconds, "action"),
		operations: r.Histogram("sampan_operation_seconds", "What operations took, by what was done to what and how it ended", metric.Seconds, "noun", "verb", "outcome"),
		checks:     r.Counter("engine_daemon_health_checks_total", "The total number of health checks"),
		failed:     r.Counter("engine_daemon_health_checks_failed_total", "The total number of failed health checks"),
		check:      r.Histogram("engine_daemon_health_check_duration_seconds", "The number of seconds a health check takes", metric.Seconds),
		events:     r.Counter("engine_daemon_events_total", "The number of events logged"),
	}
}

// actions are dockerd's names of what is done to containers, by ours.
var actions = map[string]string{"create": "create", "start": "start", "remove": "delete", "commit": "commit", "changes": "changes"}

// recorder follows operations for the metrics and for --debug.
func (e *engine) recorder() *operation.Recorder {
	return &operation.Recorder{Logger: e.log, Done: func(noun, verb string, took time.Duration, err error) {
		outcome := "success"
		if err != nil {
			outcome = "failure"
		}
		e.metrics.operations.Observe(took.Seconds(), noun, verb, outcome)
		if action, ok := actions[verb]; ok && noun == "container" {
			e.metrics.containers.Observe(took.Seconds(), action)
		}
		if noun == "health" {
			e.metrics.checks.Add(1)
			e.metrics.check.Observe(took.Seconds())
			if err != nil {
				e.metrics.failed.Add(1)
			}
		}
	}}
}

// describe adds the numbers that are asked for when somebody reads them.
func (e *engine) describe() {
	r := e.metrics.all
	gauge := func(name, help string, value func() float64) {
		r.Func(name, "gauge", help, nil, func() []metric.Value { return []metric.Value{{Value: value()}} })
	}
	r.Func("engine_daemon_container_states_containers", "gauge", "The count of containers in various states", []string{"state"}, func() []metric.Value {
		_, running, paused, stopped := e.containers.Counts()
		return []metric.Value{{Labels: []string{"paused"}, Value: float64(paused)}, {Labels: []string{"running"}, Value: float64(running)}, {Labels: []string{"stopped"}, Value: float64(stopped)}}
	})
	kernel, machine := uname()
	name, version := release()
	r.Func("engine_daemon_engine_info", "gauge", "The information related to the engine and the OS it is running on",
		[]string{"architecture", "commit", "daemon_id", "graphdriver", "kernel", "os", "os_type", "os_version", "version"}, func() []metric.Value {
			return []metric.Value{{Labels: []string{machine, wire.Commit, e.id, "overlay2", kernel, name, runtime.GOOS, version, wire.Release}, Value: 1}}
		})
	gauge("engine_daemon_engine_cpus_cpus", "The number of cpus that the host system of the engine has", func() float64 { return float64(runtime.NumCPU()) })
	gauge("engine_daemon_engine_memory_bytes", "The number of bytes of memory that the host system of the engine has", func() float64 {
		var s unix.Sysinfo_t
		if unix.Sysinfo(&s) != nil {
			return 0
		}
		return float64(s.Totalram) * float64(s.Unit)
	})
	gauge("engine_daemon_events_subscribers_total", "The number of current subscribers to events", func() float64 { return float64(e.events.Subscribers()) })
	gauge("go_goroutines", "Number of goroutines that currently exist.", func() float64 { return float64(runtime.NumGoroutine()) })
	gauge("process_open_fds", "Number of open file descriptors.", func() float64 { return float64(openFiles()) })
	gauge("process_resident_memory_bytes", "Resident memory size in bytes.", residentMemory)
	started := float64(time.Now().UnixMilli()) / 1000
	gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", func() float64 { return started })
}

// residentMemory reads proc_pid_statm(5).
func residentMemory() float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseFloat(fields[1], 64)
	if err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize())
}

// openMetrics serves /metrics at metrics-addr, in plain HTTP and to everybody who reaches it, as dockerd.
func (e *engine) openMetrics(ctx context.Context) error {
	e.describe()
	if e.o.Metrics == "" {
		return nil
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", e.o.Metrics)
	if err != nil {
		return fmt.Errorf("--metrics-addr %s: %w", e.o.Metrics, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", metric.ContentType)
		if err := e.metrics.all.Write(w); err != nil {
			e.log.Debug("metrics", "error", err)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute}
	counting, stop := context.WithCancel(context.WithoutCancel(ctx))
	go e.countEvents(counting)
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			e.log.Error("metrics API", "error", err)
		}
	}()
	e.log.Info("metrics API listening on " + l.Addr().String())
	e.later(func() error {
		stop()
		return server.Close()
	})
	return nil
}

// countEvents counts what happens. A subscriber that is too slow is cut off, and comes again.
func (e *engine) countEvents(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := e.events.Subscribe(ctx, time.Time{}, time.Time{}, nil)
		if err != nil {
			e.log.Error("count events", "error", err)
			return
		}
		for range events {
			e.metrics.events.Add(1)
		}
	}
}
