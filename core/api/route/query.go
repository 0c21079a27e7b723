package route

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/fault"
)

// A Query reads query parameters. It keeps the first error, so that a handler reads all that it
// needs and asks once. Parameters that nobody reads are ignored, as Docker does: clients send more
// than an endpoint has.
type Query struct {
	values url.Values
	err    error
}

// Query returns the parameters of the request.
func (r *Request) Query() *Query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := &Query{values: values}
	if err != nil {
		q.fail("query", r.URL.RawQuery, "parameters as name=value, joined by &, percent-encoded")
	}
	return q
}

// Err returns the first error, of class Invalid.
func (q *Query) Err() error { return q.err }

func (q *Query) fail(name, given, expected string) {
	if q.err == nil {
		q.err = &fault.Field{Field: name, Given: given, Expected: expected}
	}
}

// Has reports whether the parameter was given, be it empty.
func (q *Query) Has(name string) bool { return q.values.Has(name) }

// Text returns the parameter, or "".
func (q *Query) Text(name string) string { return q.values.Get(name) }

// Texts returns every value of the parameter.
func (q *Query) Texts(name string) []string { return q.values[name] }

// Required returns the parameter; an empty one is an error.
func (q *Query) Required(name, expected string) string {
	s := q.values.Get(name)
	if s == "" {
		q.fail(name, s, expected)
	}
	return s
}

// Bool returns the parameter, false when it is not given. Clients spell it in many ways: Go 1,
// Python True.
func (q *Query) Bool(name string) bool { return q.BoolOr(name, false) }

// BoolOr is Bool with another default. Given without a value is false, as in Docker.
func (q *Query) BoolOr(name string, otherwise bool) bool {
	if !q.Has(name) {
		return otherwise
	}
	given := q.values.Get(name)
	switch strings.ToLower(strings.TrimSpace(given)) {
	case "1", "t", "true", "y", "yes", "on":
		return true
	case "", "0", "f", "false", "n", "no", "off", "none":
		return false
	}
	q.fail(name, given, "true or false")
	return otherwise
}

// Int returns the parameter, or the default when it is not given or empty.
func (q *Query) Int(name string, otherwise int) int {
	given := q.values.Get(name)
	if given == "" {
		return otherwise
	}
	n, err := strconv.Atoi(given)
	if err != nil {
		q.fail(name, given, "a whole number")
		return otherwise
	}
	return n
}

// Seconds returns a time-out in seconds, nil when it is not given. A negative one means forever.
func (q *Query) Seconds(name string) *int {
	given := q.values.Get(name)
	if given == "" {
		return nil
	}
	n, err := strconv.Atoi(given)
	if err != nil {
		q.fail(name, given, "a number of seconds")
		return nil
	}
	return &n
}

// Bytes returns a size in bytes, 0 when it is not given.
func (q *Query) Bytes(name string) int64 {
	given := q.values.Get(name)
	if given == "" {
		return 0
	}
	n, err := strconv.ParseInt(given, 10, 64)
	if err != nil || n < 0 {
		q.fail(name, given, "a number of bytes")
		return 0
	}
	return n
}

// Cells returns a height or width of a terminal, which must be given. The kernel keeps 16 bits.
func (q *Query) Cells(name, what string) uint16 {
	given := q.values.Get(name)
	n, err := strconv.ParseUint(given, 10, 16)
	if err != nil {
		q.fail("resize "+what, given, "a number of character cells from 0 to 65535")
	}
	return uint16(n)
}

// Time returns a moment, the zero time when it is not given: seconds since 1970 with an optional
// fraction ("1136073600.000000001").
func (q *Query) Time(name string) time.Time {
	given := q.values.Get(name)
	if given == "" {
		return time.Time{}
	}
	whole, fraction, _ := strings.Cut(given, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	nanos := int64(0)
	if err == nil && fraction != "" {
		padded := (fraction + "000000000")[:9]
		var n uint64
		n, err = strconv.ParseUint(padded, 10, 64)
		nanos = int64(n)
	}
	if err != nil {
		q.fail(name, given, "seconds since 1970, such as 1136073600 or 1136073600.5")
		return time.Time{}
	}
	return time.Unix(seconds, nanos)
}
