package apiserver

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"
)

// OpsHandler answers the TCP listener: /metrics, /healthz, /readyz and
// /debug/pprof. Probes depend on nothing outside the agent.
func OpsHandler(h Health, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := h.Healthy(); err != nil {
			probe(w, http.StatusServiceUnavailable, "not healthy: "+err.Error())
			return
		}
		probe(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s := h.Status()
		if !s.Ready {
			probe(w, http.StatusServiceUnavailable, strings.Join(NotReady(s.Reasons), "\n"))
			return
		}
		probe(w, http.StatusOK, "ready")
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// NotReady words what is missing, a line each. There is always one.
func NotReady(reasons []string) []string {
	if len(reasons) == 0 {
		return []string{"not ready: starting"}
	}
	lines := make([]string, len(reasons))
	for i, r := range reasons {
		lines[i] = "not ready: " + r
	}
	return lines
}

func probe(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}
