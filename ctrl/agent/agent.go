// Package agent wires the parts of culvertd: configuration in, tables, ports,
// pods and the sockets' answers out.
//
//	source → flavour ─┐
//	underlay ─────────┼→ program → engine
//	CNI → pods ───────┘
//
// It decides little itself: in which order the parts start and stop (run.go),
// which devices the engine gets (uplinks.go, attach.go), and what of all this
// the operator sees (backend.go).
package agent

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/calicoipam"
	"culvert/ctrl/cniconf"
	"culvert/ctrl/config"
	"culvert/ctrl/flavour"
	"culvert/ctrl/hostlink"
	"culvert/ctrl/ipam"
	"culvert/ctrl/metrics"
	"culvert/ctrl/outer"
	"culvert/ctrl/pods"
	"culvert/ctrl/program"
	"culvert/ctrl/source"
	"culvert/ctrl/statedir"
	"culvert/ctrl/underlay"
	"culvert/dataplane"
	"culvert/dataplane/intake"
	"culvert/dataplane/xsk"
	"culvert/encap"
)

// Agent is one culvertd. Make it with New, let Run do the rest.
type Agent struct {
	cfg     *config.Config
	log     *slog.Logger
	version string
	started time.Time
	dir     *statedir.Dir
	ending  chan struct{} // closed when Run is told to end

	underlay *underlay.Watcher
	engine   *dataplane.Engine
	umems    []*xsk.Umem // by worker
	paths    *outer.Paths
	intake   *intake.Intake // nil where there is none
	program  *program.Programmer
	ipam     *ipam.Allocator
	pods     *pods.Manager
	source   source.Source
	metrics  *metrics.Metrics
	kept     *kept         // with applying held
	known    flavour.Cache // with applying held
	peers    []netip.Addr  // that the underlay and paths were told of; with applying held
	// publisher writes to the API server; nil with a directory of manifests.
	publisher publisher
	// calico is where Calico's blocks and addresses are written, and keeper who does
	// it; nil with manifests.
	calico calicoipam.Store
	keeper *keeper
	// cniConf is what the container runtime is told; nil where somebody else tells it.
	cniConf *cniconf.Conf

	// The locks are taken in this order. holding may be held for seconds; mu
	// never while waiting, for status, metrics and probes need it.
	applying sync.Mutex // one set of objects at a time
	holding  sync.Mutex // one change of the uplinks at a time
	hearing  sync.Mutex // one change of the listeners at a time
	ears     [2]ear     // of IPv4 and IPv6

	hostGone chan struct{} // somebody has deleted culvert0

	mu       sync.Mutex
	host     *host              // nil: there is none
	hostless string             // why
	uplinks  map[string]*uplink // by name
	ports    map[string]*podPort
	overhead int // of the tunnels, in bytes
	mtu      int // the pods'
	objects  *source.Objects
	problems []string // what is wrong at the source
	stale    bool
	most     int    // what the cluster lets the pods' MTU be, 0: anything
	mode     string // what runs; empty while nothing is decided
	another  string // what speaks against the mode, if anything
	foreign  string // what is wrong with the node's address, if anything
	restored bool   // the pods of before were brought back
	// cniProblem is what keeps the container runtime from cniConf, if anything.
	cniProblem string
	stopping   bool
	since      map[flavour.Conflict]time.Time // when each was first seen
	leaks      []api.IPAMFinding              // of the last comparison of addresses
	compared   time.Time                      // when that was
}

// checkFrames is the environment variable that turns on the verification of every
// frame's owner: a frame used twice then ends culvertd. For tests; it costs time.
const checkFrames = "CULVERTD_CHECK_FRAMES"

// New takes the state directory, looks at the machine, sizes the dataplane and prepares
// everything that Run will start. On an error nothing is left behind.
func New(cfg *config.Config, log *slog.Logger, version string) (*Agent, error) {
	dir, err := statedir.Open(cfg.StateDir, version)
	if err != nil {
		return nil, err
	}
	a, err := open(cfg, log, version)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	a.dir = dir
	return a, nil
}

// open is New in a state directory that is taken.
func open(cfg *config.Config, log *slog.Logger, version string) (*Agent, error) {
	a := &Agent{
		cfg: cfg, log: log, version: version, started: time.Now(), ending: make(chan struct{}),
		hostGone: make(chan struct{}, 1), uplinks: map[string]*uplink{}, ports: map[string]*podPort{}, paths: outer.NewPaths(),
		overhead: overheadOf(&flavour.Desired{Encap: cfg.Native.Encap}),
	}
	err := errors.Join(a.openSource(), a.openCNI())
	if err != nil {
		return nil, err
	}
	if a.underlay, err = underlay.New(log, cfg.Uplinks); err != nil {
		return nil, cfg.Errorf("uplinks", "%v", err)
	}
	a.underlay.Overlook(hostlink.Name)
	workers, err := a.sizeWorkers()
	if err != nil {
		return nil, err
	}
	a.engine, err = dataplane.New(dataplane.Config{
		Workers: workers, Poll: dataplane.Poll(cfg.Poll), FrameSize: cfg.XDP.FrameSize, RingSize: cfg.XDP.RingSize,
		FlowCapacity: cfg.Flows.Capacity, Logger: log, Checked: os.Getenv(checkFrames) != "",
	})
	if err != nil {
		return nil, err
	}
	for w := range workers {
		a.umems = append(a.umems, xsk.NewUmem(a.engine.Pool(w)))
	}
	if err := errors.Join(a.openIntake(workers), a.prepare(workers)); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// prepare makes the parts that need the engine.
func (a *Agent) prepare(workers int) (err error) {
	a.program = program.New(a.log, a.engine, a.underlay)
	if a.ipam, err = ipam.New(); err != nil {
		return err
	}
	a.ipam.SetCooldown(a.cfg.IPAM.Cooldown, nil)
	cluster, err := a.openKeeper()
	if err != nil {
		return err
	}
	a.pods, err = pods.New(pods.Config{
		Cluster: cluster, StateDir: a.cfg.StateDir, PendingDir: pods.PendingDir(a.cfg.Socket), HostPrefix: a.hostPrefix, MTU: a.podMTU,
		Queues: workers, Ready: a.readyForPods, Attacher: a, IPAM: a.ipam, Logger: a.log,
	})
	if err != nil {
		return err
	}
	if a.kept, err = loadKept(a.cfg.StateDir, a.cfg.Node); err != nil {
		a.log.Warn("begun anew", "cause", err)
	}
	a.metrics = metrics.New(a, a.version, "source", "underlay", "flavour", "host", "pods", "publish")
	a.program.Synced = a.metrics.Synced
	return nil
}

// sizeWorkers is the number of workers: as configured, or one for each queue of the
// narrowest uplink. With more of them than queues some receive nothing from the
// wire but what the intake hands them, and send their frames there by packet socket.
func (a *Agent) sizeWorkers() (int, error) {
	queues := 0
	for _, l := range a.underlay.Uplinks() {
		if err := a.cfg.CheckUplinkMTU(l.Name, l.MTU); err != nil {
			return 0, err
		}
		if queues == 0 || l.Queues < queues {
			queues = l.Queues
		}
	}
	if n := a.cfg.Workers; n > 0 {
		return n, nil
	}
	return min(max(queues, 1), runtime.GOMAXPROCS(0)), nil
}

// podMTU is what pods get: as configured, or what the smallest uplink leaves.
func (a *Agent) podMTU() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mtu
}

// overheadOf is what the tunnels' headers take of the uplinks' MTU, also where some
// peers are reached without: pods have one MTU.
func overheadOf(d *flavour.Desired) int {
	switch {
	case d.Encap == flavour.None:
		return 0
	case d.Encap == flavour.IPIP:
		return encap.OverheadIPIP
	case d.Mode == flavour.ModeFlannel: // all nodes have one pod MTU, whatever the family
		return encap.OverheadVXLAN4
	case d.Local != nil && d.Local.PublicIP.Is6(), d.VXLANOver6():
		return encap.OverheadVXLAN6
	}
	return encap.OverheadVXLAN4
}

// measureMTU recomputes the pods' MTU from the uplinks.
func (a *Agent) measureMTU() {
	a.mu.Lock()
	overhead, most := a.overhead, a.most
	a.mu.Unlock()
	mtu := a.cfg.MTU
	if mtu == 0 {
		for _, l := range a.underlay.Uplinks() {
			if room := l.MTU - overhead; l.Index != 0 && (mtu == 0 || room < mtu) {
				mtu = room
			}
		}
		if most > 0 && most < mtu {
			mtu = most
		}
	}
	a.mu.Lock()
	changed := mtu != a.mtu && mtu > 0
	if changed {
		a.mtu = mtu
	}
	a.mu.Unlock()
	if changed {
		a.log.Info("pod MTU", "mtu", mtu)
		a.program.SetPodMTU(mtu)
		a.tellHost(a.program.Desired())
	}
}

// readyForPods says why a pod cannot be added yet.
func (a *Agent) readyForPods() error {
	if !a.isRestored() {
		return errRestoring
	}
	if missing := poolsMissing(a.program.Desired(), a.cfg.Node, a.cfg.Source); missing != "" && !a.claims() {
		return errors.New(missing)
	}
	if a.podMTU() == 0 {
		return errors.New("no uplink is there to take the pods' MTU from")
	}
	return nil
}
