package route

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"time"

	"github.com/sampan-project/sampan/core/fault"
)

const (
	// MaxJSON bounds a JSON body. The largest that a client has reason to send is a container with
	// its environment; the kernel takes 2 MiB of that.
	MaxJSON = 8 << 20
	// jsonTime bounds the wait for a JSON body: a client that sends it byte by byte holds a connection and
	// memory for nothing.
	jsonTime = time.Minute
	// MaxArchive bounds an uploaded archive. It stops a stream without an end, not a large image.
	MaxArchive = 256 << 30
)

// Decode reads the JSON body into v. An empty body leaves v as it is; anything that is not
// application/json is refused before it is read.
func (r *Request) Decode(w http.ResponseWriter, v any) error {
	if r.Body == nil || r.ContentLength == 0 {
		return nil
	}
	given := r.Header.Get("Content-Type")
	if kind, _, err := mime.ParseMediaType(given); err != nil {
		return fault.New(fault.Invalid, "malformed Content-Type header (%s): expected application/json", given)
	} else if kind != "application/json" {
		return fault.New(fault.Invalid, "unsupported Content-Type header (%s): must be 'application/json'", given)
	}
	c := http.NewResponseController(w)
	if c.SetReadDeadline(time.Now().Add(jsonTime)) == nil { // a connection of net/http has deadlines
		defer c.SetReadDeadline(time.Time{}) //nolint:errcheck // see above
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxJSON))
	if err := d.Decode(v); err != nil {
		return decodeError(err)
	}
	if d.More() {
		return fault.New(fault.Invalid, "unexpected content after JSON")
	}
	return nil
}

// decodeError says in one line what is wrong with a body, without Go's names of types.
func decodeError(err error) error {
	var tooLarge *http.MaxBytesError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fault.New(fault.Invalid, "the request body did not arrive within %v", jsonTime)
	case errors.Is(err, io.EOF):
		return fault.New(fault.Invalid, "invalid JSON: got EOF while reading request body")
	case errors.As(err, &kind):
		return fault.New(fault.Invalid, "invalid JSON: %s: got %s, expected %s", cmp.Or(kind.Field, "the body"), kind.Value, jsonKind(kind.Type))
	}
	return fault.New(fault.Invalid, "invalid JSON: %w", err)
}

// jsonKind is what JSON calls the values that a type takes.
func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "a string in base64"
		}
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Pointer:
		return jsonKind(t.Elem())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "an integer"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "an integer from 0"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "something else"
}

// Upload returns the body of an archive upload, bounded by MaxArchive. It may be read after the
// answer has begun, as when progress is reported: net/http otherwise cuts the body off then.
func (r *Request) Upload(w http.ResponseWriter) io.Reader {
	_ = http.NewResponseController(w).EnableFullDuplex() // without it only a concurrent answer fails
	r.upload = http.MaxBytesReader(w, r.Body, MaxArchive)
	return r.upload
}

const (
	// maxRest is how much of an upload that nobody wants is read, so that a client that sends first and
	// then reads gets its answer, and keeps its connection.
	maxRest = 1 << 20
	// restTime bounds the wait for it.
	restTime = 5 * time.Second
)

// Finish reads what a handler left of an upload: net/http does it for us only without the full duplex
// mode. A connection with more than that to come is closed.
func (r *Request) Finish(w http.ResponseWriter) {
	if r.upload == nil {
		return
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(restTime)) // a connection of net/http has deadlines
	n, err := io.CopyN(io.Discard, r.upload, maxRest)
	if n == maxRest || err != nil && !errors.Is(err, io.EOF) {
		w.Header().Set("Connection", "close")
		return
	}
	_ = c.SetReadDeadline(time.Time{})
}

// WriteJSON answers with the value.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// WriteBody answers with a body that is made already.
func WriteBody(w http.ResponseWriter, kind string, body []byte) error {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(body)
	return err
}

// NoContent answers that it is done.
func NoContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}
