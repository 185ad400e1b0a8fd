// Package api holds what crosses culvertd's unix socket: the types of the
// HTTP+JSON interface that culvert, culvert-cni and culvertd share, and the
// client.
//
// Keys are lower-case and use iproute2's words. The types are plain values
// without behaviour that could differ between the two ends; addresses and MACs
// are strings in their canonical form.
package api

import (
	"errors"
	"fmt"
	"net/http"
)

// DefaultSocket is where culvertd listens unless configured otherwise.
const DefaultSocket = "/run/culvert/culvert.sock"

// Error is the agent's refusal. On the wire it is the object {"error": Message}
// with the HTTP status Status.
type Error struct {
	Status  int    `json:"-"`
	Message string `json:"error"`
}

// Error is the message alone: it was written for the operator.
func (e *Error) Error() string { return e.Message }

// NotFound refuses because what was asked for does not exist.
func NotFound(format string, args ...any) error {
	return &Error{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

// Invalid refuses because the request makes no sense.
func Invalid(format string, args ...any) error {
	return &Error{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// Unavailable refuses because the agent cannot do that yet.
func Unavailable(format string, args ...any) error {
	return &Error{http.StatusServiceUnavailable, fmt.Sprintf(format, args...)}
}

// StatusOf is the HTTP status that err travels under.
func StatusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return http.StatusInternalServerError
}
