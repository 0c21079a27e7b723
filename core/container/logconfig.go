package container

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/wire"
)

// logDrivers are the logging drivers and the options that each knows.
var logDrivers = map[string][]string{
	"json-file": {"env", "labels", "max-file", "max-size", "mode"},
	"local":     {"env", "labels", "max-file", "max-size", "mode"},
	"none":      {},
}

// localMaxSize and localMaxFile are the bounds of Docker's local driver, which rotates unasked.
const (
	localMaxSize = 20 << 20
	localMaxFile = 5
)

// ValidateLog checks a logging driver and its options.
func ValidateLog(l wire.LogConfig) error {
	known, ok := logDrivers[l.Type]
	if !ok {
		drivers := slices.Sorted(maps.Keys(logDrivers))
		return &fault.Field{Field: "logging driver", Given: shortened(l.Type), Expected: "one of " + strings.Join(drivers, ", "), Nearest: fault.Nearest(l.Type, drivers)}
	}
	for _, key := range slices.Sorted(maps.Keys(l.Config)) {
		if !slices.Contains(known, key) {
			return fault.New(fault.Invalid, "unknown log opt '%s' for %s log driver: expected one of %s", shortened(key), l.Type, strings.Join(known, ", "))
		}
	}
	if mode := l.Config["mode"]; mode != "" && mode != "blocking" {
		return fault.New(fault.NotImplemented, "log opt mode=%s is not supported: expected blocking", shortened(mode))
	}
	_, _, err := logBounds(l)
	return err
}

func validateLog(rec *record) error { return ValidateLog(rec.Host.LogConfig) }

func logBounds(l wire.LogConfig) (size int64, files int, err error) {
	if l.Type == "local" {
		size, files = localMaxSize, localMaxFile
	}
	if v := l.Config["max-size"]; v == "-1" {
		size = 0
	} else if v != "" {
		if size, err = units.RAMInBytes(v); err != nil || size <= 0 {
			return 0, 0, &fault.Field{Field: "log opt max-size", Given: shortened(v), Expected: "a size such as 10m"}
		}
	}
	if v := l.Config["max-file"]; v != "" {
		if files, err = strconv.Atoi(v); err != nil || files < 1 || files > 1000 {
			return 0, 0, &fault.Field{Field: "log opt max-file", Given: shortened(v), Expected: "a number from 1 to 1000"}
		}
		if files > 1 && size == 0 {
			return 0, 0, fault.New(fault.Invalid, "log opt max-file=%s needs max-size: without it the log is not rotated", v)
		}
	}
	return size, files, nil
}

// logPath is where the container's log is, or "" when it keeps none.
func (m *Manager) logPath(rec *record) string {
	if rec.Host.LogConfig.Type == "none" {
		return ""
	}
	return filepath.Join(m.directory(rec.ID), rec.ID+"-json.log")
}

func (m *Manager) logConfig(rec *record) monitor.LogConfig {
	l := rec.Host.LogConfig
	size, files, _ := logBounds(l) //nolint:errcheck // validated when the container was created
	return monitor.LogConfig{Driver: l.Type, Path: m.logPath(rec), MaxSize: size, MaxFile: files, Attributes: logAttributes(rec)}
}

// logAttributes are the labels and variables that the options name, for every entry of the log.
func logAttributes(rec *record) map[string]string {
	attributes := map[string]string{}
	for _, key := range splitList(rec.Host.LogConfig.Config["labels"]) {
		if v, ok := rec.Config.Labels[key]; ok {
			attributes[key] = v
		}
	}
	for _, key := range splitList(rec.Host.LogConfig.Config["env"]) {
		for _, e := range rec.Config.Env {
			if k, v, ok := strings.Cut(e, "="); ok && k == key {
				attributes[key] = v
			}
		}
	}
	if len(attributes) == 0 {
		return nil
	}
	return attributes
}

func splitList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
