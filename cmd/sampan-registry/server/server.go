// Package server answers the API of the OCI distribution specification 1.1 from a store, and the catalogue of
// the Docker registry (GET /v2/_catalog). A file has one noun: blobs, uploads, manifests, lists.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/cmd/sampan-registry/store"
	"github.com/sampan-project/sampan/core/fault"
)

// Cache answers from another registry what the store has not. Its answers are kept in the store.
type Cache interface {
	// Manifest returns a manifest by tag or digest.
	Manifest(ctx context.Context, name, reference string) (store.Manifest, error)
	// Blob writes the answer to a request for a blob that the store has not.
	Blob(w http.ResponseWriter, r *http.Request, name string, d digest.Digest) error
	// List hands on the answer to a request for a list, which only the other registry knows.
	List(w http.ResponseWriter, r *http.Request, name string) error
	// Hit counts what the store had.
	Hit(kind string)
}

// Access says who may speak to the registry.
type Access interface {
	Allowed(user, password string) bool
}

// Options are what a registry is besides its store.
type Options struct {
	ReadOnly bool
	NoDelete bool
	Cache    Cache  // nil: this registry is the origin
	Access   Access // nil: everybody
	Log      *slog.Logger
}

// Server is the handler.
type Server struct {
	store *store.Store
	o     Options
}

// New returns the handler of a store.
func New(s *store.Store, o Options) *Server { return &Server{store: s, o: o} }

// call is one request about a repository.
type call struct {
	*Server
	w    http.ResponseWriter
	r    *http.Request
	name string
	id   string // the tag, digest or upload that the path names
}

// route is a path below /v2/ with what its methods do.
type route struct {
	path *regexp.Regexp
	do   map[string]func(*call) error
}

var routes = []route{
	{regexp.MustCompile(`^(.+)/blobs/uploads/?()$`), map[string]func(*call) error{"POST": (*call).begin}},
	{regexp.MustCompile(`^(.+)/blobs/uploads/([A-Z0-9]{1,64})$`), map[string]func(*call) error{
		"GET": (*call).status, "PATCH": (*call).chunk, "PUT": (*call).commit, "DELETE": (*call).cancel,
	}},
	{regexp.MustCompile(`^(.+)/blobs/([^/]+)$`), map[string]func(*call) error{"GET": (*call).blob, "HEAD": (*call).blob, "DELETE": (*call).deleteBlob}},
	{regexp.MustCompile(`^(.+)/manifests/([^/]+)$`), map[string]func(*call) error{
		"GET": (*call).manifest, "HEAD": (*call).manifest, "PUT": (*call).putManifest, "DELETE": (*call).deleteManifest,
	}},
	{regexp.MustCompile(`^(.+)/tags/list()$`), map[string]func(*call) error{"GET": (*call).tags}},
	{regexp.MustCompile(`^(.+)/referrers/([^/]+)$`), map[string]func(*call) error{"GET": (*call).referrers}},
}

// ServeHTTP answers a request, and writes a line about it to the log.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started, answer, body := time.Now(), &recorder{ResponseWriter: w}, &received{ReadCloser: r.Body}
	r.Body = body
	answer.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if err := s.serve(answer, r); err != nil {
		s.fail(answer, r, err)
	}
	s.o.Log.Info("request", "client", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "status", answer.status, "sent", answer.bytes, "received", body.bytes, "duration", time.Since(started).Round(time.Microsecond))
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	if s.o.Access != nil {
		user, password, ok := r.BasicAuth()
		if !ok || !s.o.Access.Allowed(user, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="sampan registry"`)
			return &problem{http.StatusUnauthorized, "UNAUTHORIZED", "authentication required"}
		}
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	switch {
	case !ok && r.URL.Path != "/v2":
		return &problem{http.StatusNotFound, "NOT_FOUND", "expected a path below /v2/"}
	case path == "" || !ok:
		return answer(w, http.StatusOK, struct{}{})
	case path == "_catalog":
		return s.catalog(w, r)
	}
	for _, route := range routes {
		m := route.path.FindStringSubmatch(path)
		if m == nil {
			continue
		}
		do := route.do[r.Method]
		if do == nil {
			return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is unsupported"}
		}
		if !store.ValidName(m[1]) {
			return &problem{http.StatusBadRequest, "NAME_INVALID", "invalid repository name"}
		}
		if err := s.permitted(r.Method); err != nil {
			return err
		}
		return do(&call{Server: s, w: w, r: r, name: m[1], id: m[2]})
	}
	return &problem{http.StatusNotFound, "NOT_FOUND", "no such path"}
}

// permitted refuses what changes a registry that is not to be changed.
func (s *Server) permitted(method string) error {
	switch {
	case method == http.MethodGet || method == http.MethodHead:
		return nil
	case s.o.ReadOnly:
		return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "the registry is read-only"}
	case s.o.Cache != nil:
		return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "the registry is a cache of another one, to which is pushed"}
	case method == http.MethodDelete && s.o.NoDelete:
		return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "deletion is disabled"}
	}
	return nil
}

// problem is an answer in the form of the specification, "Error Codes".
type problem struct {
	status        int
	code, message string
}

func (p *problem) Error() string { return p.message }

// codes are the errors of the store in the order in which they are looked for.
var codes = []struct {
	err    error
	status int
	code   string
}{
	{store.ErrBlobUnknown, http.StatusNotFound, "BLOB_UNKNOWN"},
	{store.ErrManifestUnknown, http.StatusNotFound, "MANIFEST_UNKNOWN"},
	{store.ErrNameUnknown, http.StatusNotFound, "NAME_UNKNOWN"},
	{store.ErrUploadUnknown, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN"},
	{store.ErrDigest, http.StatusBadRequest, "DIGEST_INVALID"},
	{store.ErrRange, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID"},
	{store.ErrTooMany, http.StatusTooManyRequests, "TOOMANYREQUESTS"},
}

func (s *Server) problem(r *http.Request, err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	var invalid *store.InvalidError
	if errors.As(err, &invalid) {
		if invalid.Missing != "" {
			return &problem{http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", invalid.Reason}
		}
		return &problem{http.StatusBadRequest, "MANIFEST_INVALID", invalid.Reason}
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &problem{c.status, c.code, err.Error()}
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &problem{http.StatusRequestEntityTooLarge, "SIZE_INVALID", "a manifest has at most 4 MiB"}
	case fault.ClassOf(err) == fault.Unavailable:
		s.o.Log.Warn("upstream", "path", r.URL.Path, "error", err)
		return &problem{http.StatusBadGateway, "UNAVAILABLE", err.Error()}
	case r.Context().Err() != nil:
		return &problem{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the client went away"}
	}
	// What failed in the directory is for the administrator, not for clients.
	s.o.Log.Error("request", "method", r.Method, "path", r.URL.Path, "error", err)
	return &problem{http.StatusInternalServerError, "UNKNOWN", "the registry's store failed"}
}

func (s *Server) fail(w *recorder, r *http.Request, err error) {
	p := s.problem(r, err)
	if w.status != 0 {
		return // the answer has begun
	}
	w.Header().Del("Content-Length")
	body := map[string]any{"errors": []map[string]string{{"code": p.code, "message": p.message}}}
	_ = answer(w, p.status, body) // a client that is gone needs no answer
}

func answer(w http.ResponseWriter, status int, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, err = w.Write(data)
	return err
}

func digestOf(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return "", &problem{http.StatusBadRequest, "DIGEST_INVALID", "digest " + quoted(s) + ": " + err.Error()}
	}
	return d, nil
}

// quoted is a client's word in an error, bounded.
func quoted(s string) string {
	data, _ := json.Marshal(s[:min(len(s), 100)]) //nolint:errchkjson // a string
	return string(data)
}

// received counts what a request brought.
type received struct {
	io.ReadCloser
	bytes int64
}

func (r *received) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.bytes += int64(n)
	return n, err
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController find the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// serveFile sends a blob, or the part of it that is asked for.
func (c *call) serveFile(f *os.File, d digest.Digest) {
	c.w.Header().Set("Content-Type", "application/octet-stream")
	c.w.Header().Set("Docker-Content-Digest", d.String())
	c.w.Header().Set("ETag", `"`+d.String()+`"`)
	http.ServeContent(c.w, c.r, "", time.Time{}, f)
}
