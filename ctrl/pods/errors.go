package pods

import (
	"errors"
	"fmt"
	"io/fs"

	"culvert/ctrl/api"
	"culvert/ctrl/ipam"
	"culvert/ctrl/podlink"
)

// ErrTryAgain marks an Attacher's or Ready's error as passing: the runtime is
// told to come back (CNI code 11).
var ErrTryAgain = errors.New("try again later")

// errNoMTU is why there are no pods at first.
var errNoMTU = errors.New("culvertd does not know the pods' MTU yet: it waits for its uplink")

// Error is a refusal with a CNI error code.
type Error struct {
	Code    uint
	Msg     string
	Details string
}

// Error is the message and the details.
func (e *Error) Error() string {
	if e.Details == "" {
		return e.Msg
	}
	return e.Msg + ": " + e.Details
}

// refuse makes an Error.
func refuse(code uint, format string, args ...any) error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// wrap gives err a code and a headline, unless it has one already.
func wrap(code uint, msg string, err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	if errors.Is(err, ErrTryAgain) {
		code = api.CNITryAgain
	}
	return &Error{Code: code, Msg: msg, Details: err.Error()}
}

// notReady tells the runtime to come back, while there is a reason to.
func (m *Manager) notReady() error {
	return wrap(api.CNITryAgain, "culvertd is not ready for pods yet", m.cfg.Ready())
}

// addressError is the CNI form of an allocator's error.
func addressError(err error) error {
	var refused *ipam.RefusedError
	switch {
	case errors.Is(err, ErrTryAgain), errors.Is(err, ipam.ErrNoCIDR):
		return wrap(api.CNITryAgain, "no address for the pod", err)
	case errors.Is(err, ipam.ErrExhausted):
		return wrap(api.CNINoAddress, "no address for the pod", err)
	case errors.As(err, &refused):
		return wrap(api.CNIAddressRefused, "the address that was asked for cannot be given", err)
	}
	return wrap(api.CNIInternal, "no address for the pod", err)
}

// linkError is the CNI form of podlink's error.
func linkError(msg string, err error) error {
	var netns *podlink.NetnsError
	switch {
	case errors.As(err, &netns):
		return wrap(api.CNIInvalidEnvironment, "CNI_NETNS does not name the network namespace of a pod", err)
	case errors.Is(err, podlink.ErrInterfaceExists):
		return wrap(api.CNIInterfaceExists, "CNI_IFNAME exists in the pod already", err)
	}
	return wrap(api.CNILinkFailed, msg, err)
}

// response is the answer for an error; nil is success without a result.
func response(err error) api.CNIResponse {
	if err == nil {
		return api.CNIResponse{}
	}
	var e *Error
	if errors.As(err, &e) {
		return api.CNIResponse{Code: e.Code, Msg: e.Msg, Details: e.Details}
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return api.CNIResponse{Code: api.CNIIOFailure, Msg: "culvertd cannot keep the pod's record", Details: err.Error()}
	}
	return api.CNIResponse{Code: api.CNIInternal, Msg: "culvertd could not do it", Details: err.Error()}
}
