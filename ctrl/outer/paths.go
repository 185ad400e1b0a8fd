package outer

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The least path MTU that is believed, in bytes. An IPv4 path is taken to carry 576
// whatever an error says, a forged one or an old router's without an MTU (RFC 1191
// 3, 4; Linux's net.ipv4.route.min_pmtu is 552). An IPv6 path carries 1280, or the
// error is ignored (RFC 8201 4).
const (
	leastMTU4 = 576
	leastMTU6 = 1280
)

// Path is what is known of the way to a peer.
type Path struct {
	// MTU is the largest outer packet in bytes, until Until; 0 if nothing was learned.
	MTU   int
	Until time.Time
	// Errors counts ICMP errors by Kind.
	Errors [NumKinds]uint64
	// Fragmented counts tunnel packets of the peer's that came in fragments, and
	// Fragment is the longest fragment of the last one in bytes.
	Fragmented uint64
	Fragment   int

	told time.Time // when the log was told of fragments
}

// Paths is what is known of the ways to all peers. It is safe for concurrent use.
type Paths struct {
	mu    sync.Mutex
	peers map[netip.Addr]*Path
	since [NumKinds]uint64 // of peers that are gone
	frags uint64           // likewise
}

// NewPaths knows no peer.
func NewPaths() *Paths { return &Paths{peers: map[netip.Addr]*Path{}} }

// SetPeers says who the peers are. Nothing is learned about anybody else; what was
// known of one that is gone is forgotten.
func (p *Paths) SetPeers(addrs []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.peers
	p.peers = make(map[netip.Addr]*Path, len(addrs))
	for _, a := range addrs {
		if p.peers[a] = before[a]; p.peers[a] == nil {
			p.peers[a] = &Path{}
		}
	}
	for a, path := range before {
		if p.peers[a] == nil {
			for k, n := range path.Errors {
				p.since[k] += n
			}
			p.frags += path.Fragmented
		}
	}
}

// Note counts an error, and learns the path's MTU from one that says it: for so long.
// It reports whether the error was about a peer, and whether the MTU is another one
// now. An MTU that the packet in question would have fit is not believed (RFC 5927
// 7.2), and none that is larger than what is known: that one has to expire first.
func (p *Paths) Note(e *Error, now time.Time, last time.Duration) (known, changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	path := p.peers[e.Peer]
	if path == nil {
		return false, false
	}
	path.Errors[e.Kind]++
	if e.Kind != TooBig || e.MTU >= e.Size {
		return true, false
	}
	mtu := e.MTU
	if e.Peer.Is4() {
		mtu = max(mtu, leastMTU4)
	} else if mtu < leastMTU6 {
		return true, false
	}
	if path.MTU != 0 && mtu > path.MTU {
		return true, false
	}
	changed = mtu != path.MTU
	path.MTU, path.Until = mtu, now.Add(last)
	return true, changed
}

// tellEvery is how often the log is told of a peer that sends fragments.
const tellEvery = time.Hour

// NoteFragments counts a tunnel packet that came in fragments. It reports whether it
// came from a peer, and whether it is time to tell so.
func (p *Paths) NoteFragments(d *Datagram, now time.Time) (known, tell bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	path := p.peers[d.Peer]
	if path == nil {
		return false, false
	}
	path.Fragmented++
	path.Fragment = d.Fragment
	if !path.told.IsZero() && now.Sub(path.told) < tellEvery {
		return true, false
	}
	path.told = now
	return true, true
}

// Expire forgets the MTUs whose time is over and returns whose they were.
func (p *Paths) Expire(now time.Time) (gone []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, path := range p.peers {
		if path.MTU != 0 && !now.Before(path.Until) {
			path.MTU = 0
			gone = append(gone, a)
		}
	}
	slices.SortFunc(gone, netip.Addr.Compare)
	return gone
}

// MTUs are the path MTUs that are known, by peer.
func (p *Paths) MTUs() map[netip.Addr]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[netip.Addr]int{}
	for a, path := range p.peers {
		if path.MTU != 0 {
			all[a] = path.MTU
		}
	}
	return all
}

// All is what is known, by peer.
func (p *Paths) All() map[netip.Addr]Path {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[netip.Addr]Path, len(p.peers))
	for a, path := range p.peers {
		all[a] = *path
	}
	return all
}

// Totals are the counts over all peers, those included that are gone.
func (p *Paths) Totals() (errors [NumKinds]uint64, fragmented uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	errors, fragmented = p.since, p.frags
	for path := range maps.Values(p.peers) {
		for k, n := range path.Errors {
			errors[k] += n
		}
		fragmented += path.Fragmented
	}
	return errors, fragmented
}
