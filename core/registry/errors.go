package registry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sampan-project/sampan/core/fault"
)

// pullError gives a failure of a pull the words that Docker's clients know, on one line.
func pullError(named reference.Named, at endpoint, err error) error {
	answer := (*transport.Error)(nil)
	if err == nil || !errors.As(err, &answer) {
		return otherError(err)
	}
	code, message := said(answer)
	familiar := reference.FamiliarName(named)
	switch {
	case code == transport.ManifestUnknownErrorCode,
		code == transport.NameUnknownErrorCode && at.host != "docker.io",
		code == "" && answer.StatusCode == http.StatusNotFound && len(answer.Errors) == 0:
		return fault.New(fault.NotFound, "manifest for %s not found: manifest unknown: %s", reference.FamiliarString(named), message)
	case code == transport.BlobUnknownErrorCode:
		return fault.New(fault.NotFound, "%s: blob unknown to the registry: %s", familiar, message)
	case answer.StatusCode == http.StatusUnauthorized && at.auth != authn.Anonymous && isTokenServer(answer, at):
		// The class is dockerd's: at a status of 401 Docker's client asks for a password, and where there is nobody to
		// ask it waits for ever.
		return fault.New(fault.Internal, "unauthorized: incorrect username or password: %s", message)
	case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden,
		code == transport.DeniedErrorCode, code == transport.UnauthorizedErrorCode, code == transport.NameUnknownErrorCode:
		return fault.New(fault.NotFound, "pull access denied for %s, repository does not exist or may require 'docker login': denied: %s", familiar, message)
	}
	return stateError(answer, code, message)
}

// pushError is pullError for pushes.
func pushError(named reference.Named, at endpoint, err error) error {
	answer := (*transport.Error)(nil)
	if err == nil || !errors.As(err, &answer) {
		return otherError(err)
	}
	code, message := said(answer)
	switch {
	case answer.StatusCode == http.StatusUnauthorized && at.auth == authn.Anonymous:
		return fault.New(fault.Unauthorized, "push access denied for %s: no basic auth credentials: %s", reference.FamiliarName(named), message)
	case answer.StatusCode == http.StatusUnauthorized:
		return fault.New(fault.Unauthorized, "unauthorized: %s", message)
	case answer.StatusCode == http.StatusForbidden, code == transport.DeniedErrorCode:
		return fault.New(fault.Forbidden, "denied: %s", message)
	}
	return stateError(answer, code, message)
}

func isTokenServer(answer *transport.Error, at endpoint) bool {
	return answer.Request != nil && answer.Request.URL.Host != at.host
}

// stateError is for answers without a meaning of their own.
func stateError(answer *transport.Error, code transport.ErrorCode, message string) error {
	class := fault.Unavailable
	switch {
	case answer.StatusCode == http.StatusNotFound:
		class = fault.NotFound
	case answer.StatusCode == http.StatusTooManyRequests:
		return fault.New(fault.Unavailable, "toomanyrequests: %s", message)
	case answer.StatusCode >= 400 && answer.StatusCode < 500:
		class = fault.Invalid
	}
	if code != "" {
		message = words(string(code)) + ": " + message
	}
	where := "registry"
	if answer.Request != nil {
		where = answer.Request.Method + " " + answer.Request.URL.Redacted()
	}
	return fault.New(class, "%s: status %d: %s", where, answer.StatusCode, message)
}

// said returns the first error code of an answer and its message, which is never empty.
func said(answer *transport.Error) (transport.ErrorCode, string) {
	if len(answer.Errors) == 0 {
		return "", words(http.StatusText(answer.StatusCode))
	}
	d := answer.Errors[0]
	message := d.Message
	if message == "" {
		message = words(string(d.Code))
	}
	return transport.ErrorCode(oneLine(string(d.Code))), oneLine(message)
}

// words turns MANIFEST_UNKNOWN into "manifest unknown".
func words(code string) string { return strings.ToLower(strings.ReplaceAll(code, "_", " ")) }

// maxMessage bounds how much of a registry's words becomes ours.
const maxMessage = 500

// oneLine makes a foreign text printable on one line.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case !unicode.IsPrint(r): // what a terminal would obey, or show in another order
			return -1
		}
		return r
	}, s)
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "..."
	}
	return strings.Join(strings.Fields(s), " ")
}

// otherError is for what failed before there was an answer: the network, TLS, the context.
func otherError(err error) error {
	var u *url.Error
	var often refused
	switch {
	case errors.As(err, &often):
		return often.error
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &u):
		return err
	case errors.As(err, &u):
		// Of a registry that was tried in TLS and in plain HTTP this is the first failure.
		inner := u.Err
		if errors.Is(inner, errPlain) {
			return fault.New(fault.Unavailable, "%w", inner)
		}
		return fault.New(fault.Unavailable, "%s %q: %s", u.Op, u.URL, oneLine(inner.Error()))
	case fault.ClassOf(err) != fault.Internal:
		return err
	}
	return fault.New(fault.Unavailable, "%s", oneLine(err.Error()))
}
