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
	Routes() []underlay.Route
}

// Pod is a pod of this node whose port the engine has.
type Pod struct {
	Dev   string // the host side's device, which names the pod here
	Port  uint16 // the engine's index
	MAC   packet.MAC
	Addrs []netip.Addr
	MTU   int
	Ports []PortMapping // of the node that lead to it
}

// PortMapping is a port of the node that leads to one of a pod.
type PortMapping struct {
	Proto        uint8 // packet.ProtoTCP, ProtoUDP or ProtoSCTP
	Port, ToPort uint16
	// Addr is the node's address that it is for: every one if it is invalid, and every
	// one of its family if it is unspecified.
	Addr netip.Addr
}

// Uplink is a NIC whose port the engine has.
type Uplink struct {
	Ifindex int
	Name    string
	Port    uint16
}

// Host is the node's own stack, whose port the engine has.
type Host struct {
	Dev  string
	Port uint16
	MAC  packet.MAC // the device's
	MTU  int        // the largest packet that it is sent
}

// Programmer owns the tables. Its methods are safe for concurrent use; each
// returns when its change is published.
type Programmer struct {
	log      *slog.Logger
	engine   Publisher
	underlay Underlay
	// Synced, if set before the first change, is told how long each took.
	Synced func(time.Duration)

	mu       sync.Mutex
	table    *fib.Table
	last     *fib.Snapshot
	adjIDs   map[string]fib.AdjID // of adjacencies and groups
	hopIDs   map[hopKey]fib.HopID
	hopUsers map[hopKey]int // adjacencies that lean on each
	left     []hopKey       // those that nobody leans on since the last change

	routes     claims[netip.Prefix, route]
	fdb        claims[fdbKey, fib.FDBEntry]
	neighbours claims[neighKey, fib.Neighbour]

	peerOwners map[string]*owner
	podOwners  map[string]*owner
	node       *owner
	kernel     *owner // of what leads out of the cluster
	services   *owner
	pass       uint64

	desired *flavour.Desired
	podMTU  int
	paths   map[netip.Addr]int // path MTU by peer, outer headers included
	uplinks map[int]Uplink
	pods    map[string]Pod
	host    Host              // the zero Host: there is no port to it
	peers   map[string]string // the underlay's complaint by peer, to log it once
}

// New makes a programmer with empty tables and publishes them.
func New(log *slog.Logger, engine Publisher, u Underlay) *Programmer {
	p := &Programmer{
		log: log, engine: engine, underlay: u, table: fib.NewTable(),
		adjIDs: map[string]fib.AdjID{}, hopIDs: map[hopKey]fib.HopID{}, hopUsers: map[hopKey]int{},
		routes: newClaims[netip.Prefix, route](), fdb: newClaims[fdbKey, fib.FDBEntry](), neighbours: newClaims[neighKey, fib.Neighbour](),
		peerOwners: map[string]*owner{}, podOwners: map[string]*owner{}, node: &owner{layer: ofNode, name: "node"},
		kernel: &owner{layer: ofKernel, name: "kernel"}, services: &owner{layer: ofServices, name: "services"},
		uplinks: map[int]Uplink{}, pods: map[string]Pod{}, peers: map[string]string{}, desired: &flavour.Desired{},
	}
	p.sync(scope{})
	return p
}

// scope says whose rows a change may change. The zero scope is nobody.
type scope struct {
	peers bool     // those peers that are not what they were
	all   bool     // all peers
	node  bool     // the node itself
	out   bool     // the ways out of the cluster
	svc   bool     // the Services' addresses
	pods  []string // these pods
}

// SetDesired takes what the cluster asks for. Nobody changes d afterwards.
func (p *Programmer) SetDesired(d *flavour.Desired) {
	p.change(func() scope {
		before := p.desired
		p.desired = d
		return scope{peers: true, all: !sameForPeers(before, d), node: true, svc: !slices.Equal(before.Services, d.Services),
			out: isKnown(before) != isKnown(d)}
	})
}

// SetPodMTU sets the largest packet that is sent to another node, tunnel
// headers excluded.
func (p *Programmer) SetPodMTU(mtu int) {
	p.change(func() scope { p.podMTU = mtu; return scope{all: true} })
}

// SetPathMTUs sets what is known of the ways to peers: the largest outer packet in
// bytes, by the peer's underlay address. Nobody changes mtus afterwards.
func (p *Programmer) SetPathMTUs(mtus map[netip.Addr]int) {
	p.change(func() scope { p.paths = mtus; return scope{all: true} })
}

// SetUplink says which port a NIC is.
func (p *Programmer) SetUplink(u Uplink) {
	p.change(func() scope { p.uplinks[u.Ifindex] = u; return scope{all: true, out: true} })
}

// RemoveUplink forgets a NIC: peers behind it become unresolved.
func (p *Programmer) RemoveUplink(ifindex int) {
	p.change(func() scope { delete(p.uplinks, ifindex); return scope{all: true, out: true} })
}

// SetHost says which port leads to the node's own stack. From now on its addresses, the
// Services', and what the kernel reaches otherwise than by a gateway lead there.
func (p *Programmer) SetHost(h Host) {
	p.change(func() scope {
		if p.host == h {
			return scope{}
		}
		p.host = h
		return scope{node: true, out: true, svc: true}
	})
}

// AddPod routes a pod's addresses to its port. An address that another pod has
// is an error, and nothing is changed.
func (p *Programmer) AddPod(pod Pod) (err error) {
	p.change(func() scope {
		for dev, other := range p.pods {
			for _, a := range pod.Addrs {
				if dev != pod.Dev && slices.Contains(other.Addrs, a) {
					err = fmt.Errorf("pod address %s: it is that of %s already", a, dev)
					return scope{}
				}
			}
		}
		ports := len(p.pods[pod.Dev].Ports)+len(pod.Ports) > 0
		p.pods[pod.Dev] = pod
		return scope{pods: []string{pod.Dev}, node: ports}
	})
	return err
}

// RemovePod takes the pod's routes away. Do it before its port goes.
func (p *Programmer) RemovePod(dev string) {
	p.change(func() scope {
		ports := len(p.pods[dev].Ports) > 0
		delete(p.pods, dev)
		return scope{pods: []string{dev}, node: ports}
	})
}

// UnderlayChanged looks every next hop up again.
func (p *Programmer) UnderlayChanged() { p.change(func() scope { return scope{all: true, out: true} }) }

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

func (p *Programmer) change(f func() scope) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync(f())
}

// sync brings the tables to what those in the scope want. p.mu is held, or nobody
// else knows p yet.
func (p *Programmer) sync(s scope) {
	start := time.Now()
	var updates []update
	if s.peers || s.all {
		updates = p.peerUpdates(s.all)
	}
	if s.node {
		want, node := p.wantNode()
		p.table.SetNode(node)
		updates = append(updates, update{p.node, want})
	}
	if s.svc {
		updates = append(updates, update{p.services, p.wantServices()})
	}
	if s.out {
		updates = append(updates, update{p.kernel, p.wantOutside()})
	}
	p.apply(append(updates, p.podUpdates(s.pods)...))
	p.publish(start)
}

// publish hands the engine what the tables are now, if they changed.
func (p *Programmer) publish(start time.Time) {
	s := p.table.Commit()
	if s == p.last {
		return
	}
	p.last = s
	p.engine.Publish(s)
	if p.Synced != nil {
		p.Synced(time.Since(start))
	}
}
