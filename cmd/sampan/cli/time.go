package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/core/fault"
)

// layouts are the ways to write a moment, with a zone and without, which is the client's.
var layouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04",
	"2006-01-02T15Z07:00", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02",
}

// Timestamp returns the moment of --since or --until as the API takes it, seconds since 1970: given so,
// as a date, or as a duration before now.
func Timestamp(flag, given string, now time.Time) (string, error) {
	if given == "" {
		return "", nil
	}
	whole, fraction, _ := strings.Cut(given, ".")
	if _, err := strconv.ParseInt(whole, 10, 64); err == nil && strings.Trim(fraction, "0123456789") == "" {
		return given, nil
	}
	if d, err := time.ParseDuration(given); err == nil {
		return seconds(now.Add(-d)), nil
	}
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, given, time.Local); err == nil {
			return seconds(t), nil
		}
	}
	return "", &fault.Field{Field: flag, Given: given, Expected: "a time such as 2026-01-02T15:04:05Z, seconds since 1970, or a duration such as 42m"}
}

func seconds(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

// Ago says how long ago a moment was: "5 minutes ago".
func Ago(t time.Time) string { return units.HumanDuration(time.Since(t)) + " ago" }

// Short is the short form of an ID: its first 12 digits, without the algorithm.
func Short(id string) string {
	if _, digest, ok := strings.Cut(id, ":"); ok {
		id = digest
	}
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// Size is a number of bytes as lists show it, such as 4.27MB.
func Size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// Ellipsis shortens s to n characters, of which the last is … when something is left out.
func Ellipsis(s string, n int) string {
	if len(s) <= n { // bytes, of which a character has one or more
		return s
	}
	r := []rune(s)
	if len(r) <= n || n < 1 {
		return s
	}
	return string(r[:n-1]) + "…"
}
