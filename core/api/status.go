package api

import (
	"errors"
	"net/http"

	"github.com/sampan-project/sampan/core/fault"
)

// statuses is the table from error class to HTTP status, as dockerd's. Clients know 404 and 409
// apart, and `docker run` its exit codes from the words of a 400.
var statuses = map[fault.Class]int{
	fault.Internal:       http.StatusInternalServerError,
	fault.NotFound:       http.StatusNotFound,
	fault.Exists:         http.StatusConflict,
	fault.Conflict:       http.StatusConflict,
	fault.Invalid:        http.StatusBadRequest,
	fault.Unauthorized:   http.StatusUnauthorized,
	fault.Forbidden:      http.StatusForbidden,
	fault.Unavailable:    http.StatusServiceUnavailable,
	fault.NotImplemented: http.StatusNotImplemented,
	fault.NotModified:    http.StatusNotModified,
	fault.Canceled:       http.StatusInternalServerError,
	fault.Deadline:       http.StatusInternalServerError,
}

// statusOf returns the status for an error. A body that was cut off at its limit is an error of
// net/http, wrapped by whoever read it.
func statusOf(err error) int {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	return statuses[fault.ClassOf(err)]
}
