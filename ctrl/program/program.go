// Package program is the delta tracker: it brings the forwarding tables to what
// the cluster, the underlay and the local pods ask for.
//
// It alone writes fib.Table. Each change of an input builds the rows that ought
// to be there (rows.go), compares them with those that are (delta.go), applies
// the difference in an order in which no packet is misdelivered, and publishes
// one snapshot. It knows no Kubernetes object and no netlink: flavours and the
// underlay watcher translate those.
package program

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"culvert/ctrl/flavour"
	"culvert/ctrl/underlay"
	"culvert/fib"
	"culvert/internal/packet"
)

// Publisher takes finished snapshots: the engine.
type Publisher interface{ Publish(*fib.Snapshot) }

// Underlay says how the kernel reaches another node: the underlay watcher.
type Underlay interface {
	NextHops(dst netip.Addr) ([]underlay.NextHop, error)
}

// Pod is a pod of this node whose port the engine has.
type Pod struct {
	Dev   string // the host side's device, which names the pod here
	Port  uint16 // the engine's index
	MAC   packet.MAC
	Addrs []netip.Addr
	MTU   int
}

// Uplink is a NIC whose port the engine has.
type Uplink struct {
	Ifindex int
	Name    string
	Port    uint16
}

// Programmer owns the tables. Its methods are safe for concurrent use; each
// returns when its change is published.
type Programmer struct {
	log      *slog.Logger
	engine   Publisher
	underlay Underlay
	// Synced, if set before the first change, is told how long each took.
	Synced func(time.Duration)

	mu      sync.Mutex
	table   *fib.Table
	last    *fib.Snapshot
	have    rows
	adjIDs  map[string]fib.AdjID // of adjacencies and groups
	hopIDs  map[hopKey]fib.HopID
	desired *flavour.Desired
	podMTU  int
	paths   map[netip.Addr]int // path MTU by peer, outer headers included
	uplinks map[int]Uplink
	pods    map[string]Pod
	peers   map[string]string // the underlay's complaint by peer, to log it once
}

// New makes a programmer with empty tables and publishes them.
func New(log *slog.Logger, engine Publisher, u Underlay) *Programmer {
	p := &Programmer{
		log: log, engine: engine, underlay: u, table: fib.NewTable(),
		adjIDs: map[string]fib.AdjID{}, hopIDs: map[hopKey]fib.HopID{}, uplinks: map[int]Uplink{}, pods: map[string]Pod{}, peers: map[string]string{},
		have: newRows(), desired: &flavour.Desired{},
	}
	p.sync()
	return p
}

// SetDesired takes what the cluster asks for. Nobody changes d afterwards.
func (p *Programmer) SetDesired(d *flavour.Desired) {
	p.change(func() {
		p.desired = d
		maps.DeleteFunc(p.peers, func(name, _ string) bool {
			return !slices.ContainsFunc(d.Peers, func(peer flavour.Peer) bool { return peer.Key() == name })
		})
	})
}

// SetPodMTU sets the largest packet that is sent to another node, tunnel
// headers excluded.
func (p *Programmer) SetPodMTU(mtu int) {
	p.change(func() { p.podMTU = mtu })
}

// SetPathMTUs sets what is known of the ways to peers: the largest outer packet in
// bytes, by the peer's underlay address. Nobody changes mtus afterwards.
func (p *Programmer) SetPathMTUs(mtus map[netip.Addr]int) {
	p.change(func() { p.paths = mtus })
}

// SetUplink says which port a NIC is.
func (p *Programmer) SetUplink(u Uplink) {
	p.change(func() { p.uplinks[u.Ifindex] = u })
}

// RemoveUplink forgets a NIC: peers behind it become unresolved.
func (p *Programmer) RemoveUplink(ifindex int) {
	p.change(func() { delete(p.uplinks, ifindex) })
}

// AddPod routes a pod's addresses to its port. An address that another pod has
// is an error, and nothing is changed.
func (p *Programmer) AddPod(pod Pod) (err error) {
	p.change(func() {
		for dev, other := range p.pods {
			for _, a := range pod.Addrs {
				if dev != pod.Dev && slices.Contains(other.Addrs, a) {
					err = fmt.Errorf("pod address %s: it is that of %s already", a, dev)
					return
				}
			}
		}
		p.pods[pod.Dev] = pod
	})
	return err
}

// RemovePod takes the pod's routes away. Do it before its port goes.
func (p *Programmer) RemovePod(dev string) {
	p.change(func() { delete(p.pods, dev) })
}

// UnderlayChanged looks every next hop up again.
func (p *Programmer) UnderlayChanged() { p.change(func() {}) }

// Snapshot is what was published last.
func (p *Programmer) Snapshot() *fib.Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Desired is what the cluster asked for last; it must not be changed.
func (p *Programmer) Desired() *flavour.Desired {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.desired
}

func (p *Programmer) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.sync()
}

// sync brings the tables to the desired rows. p.mu is held, or nobody else
// knows p yet.
func (p *Programmer) sync() {
	start := time.Now()
	p.apply(p.want())
	if s := p.table.Commit(); s != p.last {
		p.last = s
		p.engine.Publish(s)
		if p.Synced != nil {
			p.Synced(time.Since(start))
		}
	}
}
