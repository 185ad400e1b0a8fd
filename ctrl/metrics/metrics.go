// Package metrics publishes culvertd's counters in Prometheus's format.
//
// Everything that has a counter or a gauge of its own elsewhere is read from
// there at each scrape; only what happens in between, synchronisations and
// their errors, is recorded here. No label has unbounded values: ports are
// bounded by the node's pods, everything else by an enum.
package metrics

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"culvert/ctrl/api"
)

// Source is the agent, as a scrape sees it. Its methods are called from the
// scrapers' goroutines.
type Source interface {
	Status() api.Status
	Ports() []api.Port
	Drops() []api.Drop
	FlowStats() api.FlowStats
	// RouteCounts is the number of routes by kind.
	RouteCounts() map[string]int
	CaptureStats() api.CaptureStats
	IPAM() api.IPAM
}

// Metrics is the agent's set. Its methods are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	sync     prometheus.Histogram
	errors   *prometheus.CounterVec
	repaired *prometheus.CounterVec
}

// New makes the set that reads from s. sources are the values that SyncError
// may be called with; they are published as 0 from the start.
func New(s Source, version string, sources ...string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "culvert_sync_duration_seconds",
			Help:    "Time from a change of the desired state to published tables.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9), // 100 µs to 6.5 s
		}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "culvert_sync_errors_total",
			Help: "Failed synchronisations, by where they failed.",
		}, []string{"source"}),
		repaired: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "culvert_drift_repaired_total",
			Help: "Rows of the tables that were not what they ought to be, and were mended. Always 0 but for a defect.",
		}, []string{"table"}),
	}
	for _, table := range []string{"adjacencies", "routes", "fdb", "neighbours"} {
		m.repaired.WithLabelValues(table)
	}
	for _, source := range sources {
		m.errors.WithLabelValues(source)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "culvert_build_info",
		Help:        "1, with the version of this build as labels.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(&collector{source: s}, m.sync, m.errors, m.repaired, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Synced records that bringing the tables to the desired state took d.
func (m *Metrics) Synced(d time.Duration) { m.sync.Observe(d.Seconds()) }

// SyncError records that source could not be followed. Values are those given
// to New: a label must not grow with what fails.
func (m *Metrics) SyncError(source string) { m.errors.WithLabelValues(source).Inc() }

// Repaired records that rows of a table were mended.
func (m *Metrics) Repaired(table string, rows int) {
	m.repaired.WithLabelValues(table).Add(float64(rows))
}

// Handler answers GET /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
