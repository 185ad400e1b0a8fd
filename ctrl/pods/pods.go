// Package pods is the life of a pod's attachment on this node: the ADD, CHECK
// and DEL transactions behind the CNI plugin, the records that survive a
// restart, and the restoration of what was there.
//
// An ADD goes through these steps, and a failure at any of them undoes the
// ones before:
//
//	request   request.go  everything the runtime sent, validated; nothing is trusted
//	address   ctrl/ipam   taken in memory; with Calico's IPAM, in its blocks too
//	record    store.go    written in state "adding": from here a crash can be cleaned up
//	link      podlink     the veth pair or the TAP, configured
//	attach    Attacher    the dataplane's port and the pod's route
//	record    store.go    in state "ready", on disk before the runtime hears of success
//
// A DEL walks back and removes the record last, so that one that failed or
// was cut short can be repeated. Invariants: an address is free only when no
// record holds it; a record in state "ready" had everything; a host name
// belongs to at most one record.
//
// The package reaches the dataplane only through Attacher and the kernel only
// through Links; tests replace both.
package pods

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/ipam"
	"culvert/ctrl/podlink"
)

// Attacher puts a pod's link into the dataplane: opens its sockets, adds the
// port, programs the route to its addresses.
//
// Attach and Detach of one pod never run at once; those of different pods do.
// Attach undoes itself on error. Detach must succeed for a pod that is not
// attached, and for one whose link is gone. An error that wraps ErrTryAgain
// tells the runtime to come back.
type Attacher interface {
	Attach(rec Record) error
	Detach(rec Record) error
}

// Links is the kernel's side; the functions of ctrl/podlink are the real one.
type Links interface {
	Create(podlink.Spec) (podlink.Link, error)
	Check(podlink.Spec) error
	Remove(podlink.Ref) error
	Find(podlink.Ref) (ifindex int, ok bool, err error)
	Adopts(podlink.Ref) bool
}

// ClusterIPAM gives addresses together with the rest of the cluster. What it gives is
// reserved in the Config's IPAM, under the record's Key, when it returns.
//
// Release is called before the record goes and before the IPAM's own Release: it must
// have noted, in a way that survives a crash, that the record's addresses are free, and
// returns at once. It is called for records without addresses, too, and again.
type ClusterIPAM interface {
	Allocate(ctx context.Context, rec Record, want []netip.Addr) ([]netip.Addr, error)
	Release(rec Record) error
}

// allocateTimeout is how long an ADD waits for the cluster's addresses.
const allocateTimeout = 20 * time.Second

// Config is what a Manager works with.
type Config struct {
	// StateDir keeps pods/ and ipam.json. It is made if it is missing.
	StateDir string
	// PendingDir is where culvert-cni leaves the DELs that found no agent:
	// see PendingDir. Empty: none are looked for.
	PendingDir string
	// HostPrefix begins the host ends' names: cv, or cali in calico mode; nil: cv.
	HostPrefix func() string
	// MTU is the pods' at this moment, 0 while it is not known.
	MTU func() int
	// Queues is the number of queues of a pod's link: that of the workers.
	Queues int
	// Ready says why ADD is not possible yet; nil: always possible.
	Ready    func() error
	Attacher Attacher
	Links    Links // nil: the kernel
	IPAM     *ipam.Allocator
	Cluster  ClusterIPAM // nil: the addresses are this node's own affair
	Logger   *slog.Logger
}

// PendingDir is the directory that belongs to a socket.
func PendingDir(socket string) string { return api.PendingDir(socket) }

// Manager runs the transactions. It is safe for concurrent use: transactions
// on one host name wait for each other, others run side by side.
type Manager struct {
	cfg   Config
	log   *slog.Logger
	store store
	locks nameLocks

	draining sync.Mutex // one Drain at a time
	history  sync.Mutex // one write of the order of addresses at a time

	mu   sync.Mutex // pods and what is in them; never held while waiting
	pods map[Key]*pod
}

// pod is a record and what is true of it in this process.
type pod struct {
	rec      Record
	attached bool // Attach succeeded and Detach did not follow
	gone     bool // the link was seen to be gone
	// failed is why it could not be attached again: Retry tries once more.
	failed error
}

// New makes a manager and its directories. It reads nothing: see Restore.
func New(cfg Config) (*Manager, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Links == nil {
		cfg.Links = kernel{}
	}
	if cfg.Ready == nil {
		cfg.Ready = func() error { return nil }
	}
	if cfg.HostPrefix == nil {
		cfg.HostPrefix = func() string { return "cv" }
	}
	if cfg.Queues < 1 {
		return nil, fmt.Errorf("pods: %d queues a pod: at least 1 is needed", cfg.Queues)
	}
	m := &Manager{cfg: cfg, log: cfg.Logger, store: store{files: disk{}}, pods: map[Key]*pod{}}
	m.store.dir = filepath.Join(cfg.StateDir, podsName)
	m.store.history = filepath.Join(cfg.StateDir, "ipam.json")
	if err := os.MkdirAll(m.store.dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return m, nil
}

// List is every record, sorted by namespace and name.
func (m *Manager) List() []Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Record, 0, len(m.pods))
	for _, p := range m.pods {
		rec := p.rec
		switch {
		case p.gone:
			rec.State = StateGone
		case rec.State == StateReady && !p.attached:
			rec.State = StateDetached
			if p.failed != nil {
				rec.Cause = p.failed.Error()
			}
		}
		out = append(out, rec)
	}
	slices.SortFunc(out, func(a, b Record) int {
		return strings.Compare(a.Namespace+"\x00"+a.Pod+"\x00"+a.Key().String(), b.Namespace+"\x00"+b.Pod+"\x00"+b.Key().String())
	})
	return out
}

// Count is the number of pods that are attached.
func (m *Manager) Count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, p := range m.pods {
		if p.attached {
			n++
		}
	}
	return n
}

// get finds a pod by its key, or nil.
func (m *Manager) get(k Key) *pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pods[k]
}

// record is a pod's record as of now.
func (m *Manager) record(p *pod) Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return p.rec
}

// find finds a pod by what it is, or nil. match runs under the lock.
func (m *Manager) find(match func(*pod) bool) *pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pods {
		if match(p) {
			return p
		}
	}
	return nil
}

// kernel is the real Links.
type kernel struct{}

func (kernel) Create(s podlink.Spec) (podlink.Link, error) { return podlink.Create(s) }
func (kernel) Check(s podlink.Spec) error                  { return podlink.Check(s) }
func (kernel) Remove(r podlink.Ref) error                  { return podlink.Remove(r) }
func (kernel) Find(r podlink.Ref) (int, bool, error)       { return podlink.Find(r) }
func (kernel) Adopts(r podlink.Ref) bool                   { return podlink.Adopts(r) }

// nameLocks is a mutex a host name, there as long as somebody wants it.
type nameLocks struct {
	mu    sync.Mutex
	locks map[string]*nameLock
}

type nameLock struct {
	mu    sync.Mutex
	users int
}

// lock waits for the name and returns its unlock.
func (l *nameLocks) lock(name string) (unlock func()) {
	l.mu.Lock()
	if l.locks == nil {
		l.locks = map[string]*nameLock{}
	}
	n := l.locks[name]
	if n == nil {
		n = &nameLock{}
		l.locks[name] = n
	}
	n.users++
	l.mu.Unlock()
	n.mu.Lock()
	return func() {
		n.mu.Unlock()
		l.mu.Lock()
		if n.users--; n.users == 0 {
			delete(l.locks, name)
		}
		l.mu.Unlock()
	}
}

// now is the time in a record: for people, nothing depends on it.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
