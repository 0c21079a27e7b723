package sdk

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/sampan-project/sampan/proto/sampan/plugin/v1"
)

// Class says what kind of failure an error is; the engine gives it on to its own clients.
type Class codes.Code

// The classes that a driver has use for. An error without one is Internal.
const (
	NotFound       = Class(codes.NotFound)
	Exists         = Class(codes.AlreadyExists)
	Conflict       = Class(codes.FailedPrecondition) // something else is in the way
	Invalid        = Class(codes.InvalidArgument)
	Forbidden      = Class(codes.PermissionDenied)
	Unavailable    = Class(codes.Unavailable) // now, not for ever
	NotImplemented = Class(codes.Unimplemented)
	Internal       = Class(codes.Internal)
)

type classified struct {
	class Class
	err   error
}

func (e *classified) Error() string { return e.err.Error() }
func (e *classified) Unwrap() error { return e.err }

// Errorf returns an error of the class with a formatted message; %w works as in fmt.Errorf.
func Errorf(class Class, format string, args ...any) error {
	return &classified{class, fmt.Errorf(format, args...)}
}

// FieldError is the error for one bad value. Its class is Invalid.
type FieldError struct {
	Field    string // as the user wrote it: the option's name
	Given    string
	Expected string // what would have been right: "a number from 576 to 65535"
	Nearest  string // the nearest right word, or ""
}

// Error is one line: field, value and expectation.
func (e *FieldError) Error() string {
	if e.Nearest != "" {
		return fmt.Sprintf("%s %q: expected %s (did you mean %q?)", e.Field, e.Given, e.Expected, e.Nearest)
	}
	return fmt.Sprintf("%s %q: expected %s", e.Field, e.Given, e.Expected)
}

// toStatus is the error as it goes over the wire.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	var field *FieldError
	if errors.As(err, &field) {
		s, detailErr := status.New(codes.InvalidArgument, err.Error()).WithDetails(&pluginv1.FieldError{
			Field: field.Field, Given: field.Given, Expected: field.Expected, Nearest: field.Nearest,
		})
		if detailErr == nil {
			return s.Err()
		}
	}
	var c *classified
	switch {
	case errors.As(err, &c):
		return status.Error(codes.Code(c.class), err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	return status.Error(codes.Internal, err.Error())
}
