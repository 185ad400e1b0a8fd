package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"culvert/ctrl/api"
)

// maxBody bounds a request's body: the largest is a CNI configuration.
const maxBody = 1 << 20

// Handler answers the paths of the unix socket from b.
func Handler(b Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", get(func() api.Status { return withArrays(b.Status()) }))
	mux.HandleFunc("GET /v1/ports", list(b.Ports))
	mux.HandleFunc("GET /v1/routes", func(w http.ResponseWriter, r *http.Request) { stream(w, b.Routes(r.URL.Query().Has("all"))) })
	mux.HandleFunc("GET /v1/fdb", list(b.FDB))
	mux.HandleFunc("GET /v1/neighbours", list(b.Neighbours))
	mux.HandleFunc("GET /v1/peers", list(b.Peers))
	mux.HandleFunc("GET /v1/pods", list(b.Pods))
	mux.HandleFunc("GET /v1/drops", list(b.Drops))
	mux.HandleFunc("GET /v1/config", get(b.Config))
	mux.HandleFunc("GET /v1/route", ofAddress(func(addr netip.Addr) (any, error) { return b.RouteGet(addr) }))
	mux.HandleFunc("GET /v1/ipam", get(b.IPAM))
	mux.HandleFunc("GET /v1/ipam/address", ofAddress(func(addr netip.Addr) (any, error) { return b.IPAMAddress(addr), nil }))
	mux.HandleFunc("POST /v1/ipam/check", post(func(r *http.Request, req api.IPAMCheckRequest) (any, error) {
		return b.IPAMCheck(r.Context(), req)
	}))
	mux.HandleFunc("GET /v1/flows", filtered(func(w http.ResponseWriter, _ *http.Request, filter api.FlowFilter) {
		stream(w, b.Flows(filter))
	}))
	mux.HandleFunc("GET /v1/flows/watch", filtered(func(w http.ResponseWriter, r *http.Request, filter api.FlowFilter) {
		watch(w, func(emit func([]api.FlowEvent) error) error { return b.WatchFlows(r.Context(), filter, emit) })
	}))
	mux.HandleFunc("GET /v1/capture", func(w http.ResponseWriter, r *http.Request) { serveCapture(w, r, b) })
	mux.HandleFunc("POST /v1/flows/flush", post(func(_ *http.Request, filter api.FlowFilter) (any, error) {
		if err := filter.Check(); err != nil {
			return nil, api.Invalid("%v", err)
		}
		n, err := b.FlushFlows(filter)
		return api.Flushed{Flushed: n}, err
	}))
	mux.HandleFunc("POST /v1/trace", post(func(_ *http.Request, req api.TraceRequest) (any, error) {
		return b.Trace(req)
	}))
	mux.HandleFunc("POST "+api.PathCNI, post(func(r *http.Request, req api.CNIRequest) (any, error) {
		return b.CNI(r.Context(), req), nil
	}))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, api.NotFound("%s %s: this agent has no such call; is it of the same version as the command?", r.Method, r.URL.Path))
	})
	return mux
}

// withArrays replaces nil by empty arrays: clients count on an array.
func withArrays(s api.Status) api.Status {
	if s.Workers == nil {
		s.Workers = []api.Worker{}
	}
	if s.Uplinks == nil {
		s.Uplinks = []api.Uplink{}
	}
	return s
}

// ofAddress hands the query's address on.
func ofAddress(do func(netip.Addr) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text := r.URL.Query().Get("address")
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			fail(w, api.Invalid("address: %q is no IP address", text))
			return
		}
		answer(w)(do(addr.Unmap()))
	}
}

// filtered hands the query's filter on.
func filtered(do func(http.ResponseWriter, *http.Request, api.FlowFilter)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query, err := url.ParseQuery(r.URL.RawQuery) // URL.Query leaves out what is malformed
		if err != nil {
			fail(w, api.Invalid("query: %v", err))
			return
		}
		filter, err := api.ParseFlowFilter(query)
		if err != nil {
			fail(w, api.Invalid("%v", err))
			return
		}
		do(w, r, filter)
	}
}

// watch answers with a line of JSON for each value, as they come. Behind the first
// nobody can be told of an error any more: the answer then ends.
func watch[T any](w http.ResponseWriter, run func(emit func([]T) error) error) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, enc, begun := http.NewResponseController(w), json.NewEncoder(w), false
	err := run(func(values []T) error {
		begun = true
		for i := range values {
			if err := enc.Encode(&values[i]); err != nil {
				return err
			}
		}
		return out.Flush()
	})
	if err != nil && !begun {
		fail(w, err)
	}
}

// captureGrace is how long a capture's client may take to read the rest.
const captureGrace = 5 * time.Second

// serveCapture streams a capture. A client that does not read does not keep it beyond
// its time.
func serveCapture(w http.ResponseWriter, r *http.Request, b Backend) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, api.Invalid("query: %v", err))
		return
	}
	req, err := api.ParseCaptureRequest(query)
	if err != nil {
		fail(w, api.Invalid("%v", err))
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(req.Duration + captureGrace)) // a writer of tests has none
	watch(w, func(emit func([]api.CaptureEvent) error) error { return b.Capture(r.Context(), req, emit) })
}

// get answers with one value.
func get[T any](value func() T) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, value()) }
}

// list answers with an array, empty rather than null.
func list[T any](values func() []T) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		all := values()
		if all == nil {
			all = []T{}
		}
		reply(w, http.StatusOK, all)
	}
}

// post decodes the body strictly, which must be an object, and answers with what
// do returns.
func post[T any](do func(*http.Request, T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req *T
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		dec.DisallowUnknownFields()
		err := dec.Decode(&req)
		if errors.Is(err, io.EOF) || err == nil && req == nil {
			err = errors.New("a JSON object is needed, {} for one without fields")
		}
		if err == nil && dec.Decode(&struct{}{}) != io.EOF {
			err = errors.New("more than one JSON value")
		}
		if err != nil {
			fail(w, api.Invalid("request body: %v", err))
			return
		}
		answer(w)(do(r, *req))
	}
}

// answer sends a value or an error.
func answer(w http.ResponseWriter) func(any, error) {
	return func(v any, err error) {
		if err != nil {
			fail(w, err)
			return
		}
		reply(w, http.StatusOK, v)
	}
}

func fail(w http.ResponseWriter, err error) {
	reply(w, api.StatusOf(err), &api.Error{Message: err.Error()})
}

func reply(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status = http.StatusInternalServerError
		body = fmt.Appendf(nil, `{"error":%q}`, "encoding the answer: "+err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that is gone needs no answer
}

// stream sends an array element by element, so that a large table is never
// held as JSON. A client that is gone ends it.
func stream[T any](w http.ResponseWriter, values iter.Seq[T]) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	separator := "["
	for v := range values {
		if _, err := io.WriteString(w, separator); err != nil {
			return
		}
		if err := enc.Encode(v); err != nil {
			return
		}
		separator = ","
	}
	if separator == "[" {
		separator = "[]"
	} else {
		separator = "]"
	}
	_, _ = io.WriteString(w, separator+"\n")
}
