package container

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/monitor/journal"
	"github.com/sampan-project/sampan/core/wire"
)

// logDrivers are the logging drivers and the options that each knows. What a driver sends elsewhere is
// kept here too, as with Docker, so that `logs` can show it; the options of that copy begin with cache.
var logDrivers = func() map[string][]string {
	every := []string{"max-buffer-size", "mode"}
	about := []string{"env", "env-regex", "labels", "labels-regex", "tag"}
	files := []string{"compress", "max-file", "max-size"}
	cache := []string{"cache-compress", "cache-disabled", "cache-max-file", "cache-max-size"}
	drivers := map[string][]string{
		"json-file": slices.Concat(every, about, files),
		"local":     slices.Concat(every, about, files),
		"syslog":    slices.Concat(every, about, cache, []string{"syslog-address", "syslog-facility", "syslog-format"}, tlsOptions),
		"journald":  slices.Concat(every, about, cache),
		"none":      {},
	}
	for _, known := range drivers {
		slices.Sort(known)
	}
	return drivers
}()

// tlsOptions are those of a syslog-address with TLS.
var tlsOptions = []string{"syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"}

// LogDrivers are the names of the logging drivers.
func LogDrivers() []string { return slices.Sorted(maps.Keys(logDrivers)) }

// localMaxSize and localMaxFile are the bounds of Docker's local driver, which rotates unasked, and of
// the copy of what is sent elsewhere.
const (
	localMaxSize = 20 << 20
	localMaxFile = 5
	// defaultBuffer is that of mode=non-blocking.
	defaultBuffer = 1 << 20
)

// ValidateLog checks a logging driver and its options.
func ValidateLog(l wire.LogConfig) error {
	known, ok := logDrivers[l.Type]
	if !ok {
		drivers := LogDrivers()
		return &fault.Field{Field: "logging driver", Given: shortened(l.Type), Expected: "one of " + strings.Join(drivers, ", "), Nearest: fault.Nearest(l.Type, drivers)}
	}
	for _, key := range slices.Sorted(maps.Keys(l.Config)) {
		if !slices.Contains(known, key) {
			return fault.New(fault.Invalid, "unknown log opt '%s' for %s log driver: expected one of %s", shortened(key), l.Type, strings.Join(known, ", "))
		}
	}
	for _, check := range []func(wire.LogConfig) error{checkMode, checkFlags, checkPatterns, checkSyslog} {
		if err := check(l); err != nil {
			return err
		}
	}
	if _, _, err := logBounds(l); err != nil {
		return err
	}
	_, err := logCompress(l)
	return err
}

func checkMode(l wire.LogConfig) error {
	switch mode, size := l.Config["mode"], l.Config["max-buffer-size"]; {
	case mode != "" && mode != "blocking" && mode != "non-blocking":
		return &fault.Field{Field: "log opt mode", Given: shortened(mode), Expected: "blocking or non-blocking"}
	case size != "" && mode != "non-blocking":
		return fault.New(fault.Invalid, "log opt max-buffer-size=%s is only supported with mode=non-blocking", shortened(size))
	case size != "":
		if n, err := units.RAMInBytes(size); err != nil || n <= 0 {
			return &fault.Field{Field: "log opt max-buffer-size", Given: shortened(size), Expected: "a size such as 4m"}
		}
	}
	return nil
}

func checkFlags(l wire.LogConfig) error {
	for _, key := range []string{"compress", "cache-compress", "cache-disabled", "syslog-tls-skip-verify"} {
		v, ok := l.Config[key]
		if _, err := strconv.ParseBool(v); ok && err != nil {
			return &fault.Field{Field: "log opt " + key, Given: shortened(v), Expected: "true or false"}
		}
	}
	return nil
}

// logCompress reports whether files that were rotated are packed: with json-file on demand, otherwise
// unless told not to, where there are such files.
func logCompress(l wire.LogConfig) (bool, error) {
	key := cacheOption(l, "compress")
	size, files, err := logBounds(l)
	if err != nil {
		return false, err
	}
	rotates := files > 1 && size > 0
	v, ok := l.Config[key]
	if !ok {
		return rotates && l.Type != "json-file" && l.Type != "none", nil
	}
	on, err := strconv.ParseBool(v)
	if err == nil && on && !rotates { // Docker's words
		err = fault.New(fault.Invalid, "log opt %s cannot be true when max-file is less than 2 or max-size is not set", key)
	}
	return on && rotates, err
}

// cacheOption is the name that an option of files has for the driver: of what is sent elsewhere it is about the
// copy that is kept here.
func cacheOption(l wire.LogConfig, name string) string {
	if l.Type == "syslog" || l.Type == "journald" {
		return "cache-" + name
	}
	return name
}

func checkPatterns(l wire.LogConfig) error {
	for _, key := range []string{"env-regex", "labels-regex"} {
		if _, err := regexp.Compile(l.Config[key]); err != nil {
			return fault.New(fault.Invalid, "log opt %s: %w", key, err)
		}
	}
	_, err := (&logTag{}).expand(l.Config["tag"])
	return err
}

func checkSyslog(l wire.LogConfig) error {
	if l.Type != "syslog" {
		return nil
	}
	network, _, err := journal.ParseAddress(l.Config["syslog-address"])
	if err != nil {
		return err
	}
	for _, key := range tlsOptions {
		v, ok := l.Config[key]
		switch {
		case ok && network != "tcp+tls":
			return fault.New(fault.Invalid, "log opt %s needs a syslog-address that begins with tcp+tls://", key)
		case ok && key != "syslog-tls-skip-verify" && !filepath.IsAbs(v):
			return &fault.Field{Field: "log opt " + key, Given: shortened(v), Expected: "the absolute path of a PEM file"}
		}
	}
	if (l.Config["syslog-tls-cert"] == "") != (l.Config["syslog-tls-key"] == "") {
		return fault.New(fault.Invalid, "log opts syslog-tls-cert and syslog-tls-key: expected both or none")
	}
	if f := l.Config["syslog-format"]; !slices.Contains(journal.Formats, f) {
		return &fault.Field{Field: "log opt syslog-format", Given: shortened(f), Expected: "rfc3164, rfc5424 or rfc5424micro", Nearest: fault.Nearest(f, journal.Formats)}
	}
	_, err = journal.ParseFacility(l.Config["syslog-facility"])
	return err
}

func validateLog(rec *record) error { return ValidateLog(rec.Host.LogConfig) }

// logBounds are the size and number of the files in which the log is kept here.
func logBounds(l wire.LogConfig) (size int64, files int, err error) {
	maxSize, maxFile := cacheOption(l, "max-size"), cacheOption(l, "max-file")
	if l.Type != "json-file" {
		size, files = localMaxSize, localMaxFile
	}
	if v := l.Config[maxSize]; v == "-1" {
		size = 0
	} else if v != "" {
		if size, err = units.RAMInBytes(v); err != nil || size <= 0 {
			return 0, 0, &fault.Field{Field: "log opt " + maxSize, Given: shortened(v), Expected: "a size such as 10m"}
		}
	}
	if v := l.Config[maxFile]; v != "" {
		if files, err = strconv.Atoi(v); err != nil || files < 1 || files > 1000 {
			return 0, 0, &fault.Field{Field: "log opt " + maxFile, Given: shortened(v), Expected: "a number from 1 to 1000"}
		}
		if files > 1 && size == 0 {
			return 0, 0, fault.New(fault.Invalid, "log opt %s=%s needs max-size: without it the log is not rotated", maxFile, v)
		}
	}
	return size, files, nil
}

// logPath is where the container's log is, or "" when it keeps none.
func (m *Manager) logPath(rec *record) string {
	l := rec.Host.LogConfig
	if off, err := strconv.ParseBool(l.Config["cache-disabled"]); l.Type == "none" || err == nil && off {
		return ""
	}
	return filepath.Join(m.directory(rec.ID), rec.ID+"-json.log")
}

func (m *Manager) logConfig(rec *record) monitor.LogConfig {
	l := rec.Host.LogConfig
	size, files, _ := logBounds(l) //nolint:errcheck // validated when the container was created, as what follows
	c := monitor.LogConfig{Driver: l.Type, Path: m.logPath(rec), MaxSize: size, MaxFile: files, Attributes: logAttributes(rec)}
	c.Compress, _ = logCompress(l) //nolint:errcheck // see above
	if l.Config["mode"] == "non-blocking" {
		c.Buffer = defaultBuffer
		if n, err := units.RAMInBytes(l.Config["max-buffer-size"]); err == nil && n > 0 {
			c.Buffer = n
		}
	}
	template := l.Config["tag"]
	if l.Type == "syslog" || l.Type == "journald" {
		if template == "" {
			template = "{{.ID}}"
		}
		c.Address, c.Format = l.Config["syslog-address"], l.Config["syslog-format"]
		if skip, _ := strconv.ParseBool(l.Config["syslog-tls-skip-verify"]); strings.HasPrefix(c.Address, "tcp+tls://") { //nolint:errcheck // see above
			c.TLS = &journal.TLS{CA: l.Config["syslog-tls-ca-cert"], Cert: l.Config["syslog-tls-cert"], Key: l.Config["syslog-tls-key"], SkipVerify: skip}
		}
		c.Facility, _ = journal.ParseFacility(l.Config["syslog-facility"]) //nolint:errcheck // see above
	}
	c.Tag, _ = newLogTag(rec).expand(template) //nolint:errcheck // see above
	switch {
	case l.Type == "journald":
		c.Fields = journalFields(rec, c.Tag, c.Attributes)
	case c.Tag != "" && l.Type != "syslog":
		if c.Attributes == nil {
			c.Attributes = map[string]string{}
		}
		c.Attributes["tag"] = c.Tag
	}
	return c
}

// journalFields are those that Docker gives every entry.
func journalFields(rec *record, tag string, attributes map[string]string) map[string]string {
	fields := map[string]string{}
	for k, v := range attributes {
		if name := journal.FieldName(k); name != "" {
			fields[name] = v
		}
	}
	maps.Copy(fields, map[string]string{
		"CONTAINER_ID": rec.ID[:12], "CONTAINER_ID_FULL": rec.ID, "CONTAINER_NAME": rec.Name, "CONTAINER_TAG": tag, "IMAGE_NAME": rec.Config.Image,
	})
	return fields
}

// logAttributes are the labels and variables that the options name, for every entry of the log.
func logAttributes(rec *record) map[string]string {
	options, attributes := rec.Host.LogConfig.Config, map[string]string{}
	wants := func(what, key string) bool {
		if slices.Contains(splitList(options[what]), key) {
			return true
		}
		pattern := options[what+"-regex"]
		re, err := regexp.Compile(pattern)
		return pattern != "" && err == nil && re.MatchString(key)
	}
	for key, v := range rec.Config.Labels {
		if wants("labels", key) {
			attributes[key] = v
		}
	}
	for _, e := range rec.Config.Env {
		if k, v, ok := strings.Cut(e, "="); ok && wants("env", k) {
			attributes[k] = v
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

// logTag is what the template of the tag option may say, by Docker's names.
type logTag struct {
	FullID, FullName       string
	ImageFullID, ImageName string
	Command                string
	Labels                 map[string]string
	DaemonName             string
}

func newLogTag(rec *record) *logTag {
	return &logTag{FullID: rec.ID, FullName: "/" + rec.Name, ImageFullID: rec.ImageID.String(), ImageName: rec.Config.Image, Command: command(&rec.Config),
		Labels: rec.Config.Labels, DaemonName: "sampan"}
}

// ID is the short one.
func (t *logTag) ID() string { return t.FullID[:min(12, len(t.FullID))] }

// Name is without the slash.
func (t *logTag) Name() string { return strings.TrimPrefix(t.FullName, "/") }

// ImageID is the short one.
func (t *logTag) ImageID() string {
	id := strings.TrimPrefix(t.ImageFullID, "sha256:")
	return id[:min(12, len(id))]
}

// Hostname is the host's.
func (t *logTag) Hostname() (string, error) { return os.Hostname() }

// maxTag bounds a tag: syslog has a line for everything.
const maxTag = 1024

// tagFunctions are those of Docker's templates.
var tagFunctions = template.FuncMap{
	"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	},
	"split": strings.Split, "join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper,
	"truncate": func(s string, n int) string { return string([]rune(s)[:max(0, min(n, len([]rune(s))))]) },
	"pad": func(s string, before, after int) string {
		const most = 100 // of spaces
		if s == "" {
			return s
		}
		return strings.Repeat(" ", max(0, min(before, most))) + s + strings.Repeat(" ", max(0, min(after, most)))
	},
}

func (t *logTag) expand(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	parsed, err := template.New("tag").Funcs(tagFunctions).Parse(text)
	if err != nil {
		return "", fault.New(fault.Invalid, "log opt tag: %w", err)
	}
	var b bytes.Buffer
	if err := parsed.Execute(&b, t); err != nil {
		return "", fault.New(fault.Invalid, "log opt tag: %w", err)
	}
	if tag := b.String(); len(tag) <= maxTag && !strings.ContainsAny(tag, "\n\x00") {
		return tag, nil
	}
	return "", fault.New(fault.Invalid, "log opt tag: expected one line of at most %d bytes", maxTag)
}
