package agent

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/flavour"
	"culvert/ctrl/outer"
	"culvert/internal/drop"
)

// ear hears what the kernel gets about tunnel packets of one family.
type ear struct {
	listener *outer.Listener
	local    outer.Local // what listener was made for
	mute     string      // why there is none, as it was logged
}

// audible is what is to be heard, of IPv4 and of IPv6; zero where there are no tunnels.
func audible(d *flavour.Desired) (all [2]outer.Local) {
	if d.Local == nil {
		return all
	}
	for i, v6 := range []bool{false, true} {
		addr := d.Local.Endpoint(v6).PublicIP
		if !addr.IsValid() {
			continue
		}
		all[i] = outer.Local{Addr: addr, Port: d.Port, VNI: d.VNI}
		for k := range d.Peers {
			all[i].IPIP = all[i].IPIP || !v6 && d.Peers[k].Encap == flavour.IPIP
		}
	}
	return all
}

// listen makes the agent hear what the kernel gets about the node's tunnel packets,
// on the addresses that they have now.
func (a *Agent) listen() {
	want := audible(a.program.Desired())
	a.hearing.Lock()
	defer a.hearing.Unlock()
	for i := range want {
		a.hear(&a.ears[i], want[i])
	}
}

// hear makes an ear hear what it ought to. a.hearing is held.
func (a *Agent) hear(e *ear, want outer.Local) {
	if e.local == want {
		return
	}
	if err := e.close(); err != nil {
		a.log.Warn("closing the sockets for errors about tunnel packets", "cause", err)
	}
	a.mu.Lock()
	stopping := a.stopping
	a.mu.Unlock()
	if want == (outer.Local{}) || stopping {
		return
	}
	l, err := outer.Listen(want, (*ears)(a))
	if err != nil { // tried again: an address may come, or cease to be tentative
		if e.mute != err.Error() {
			e.mute = err.Error()
			a.log.Warn("errors about tunnel packets, and those that come in fragments, are not heard", "cause", err)
		}
		return
	}
	*e = ear{listener: l, local: want}
}

// deafen ends what listen began.
func (a *Agent) deafen() error {
	a.hearing.Lock()
	defer a.hearing.Unlock()
	return errors.Join(a.ears[0].close(), a.ears[1].close())
}

func (e *ear) close() error {
	l := e.listener
	e.listener, e.local = nil, outer.Local{}
	if l == nil {
		return nil
	}
	return l.Close()
}

// ears is the Agent as an outer.Handler.
type ears Agent

// Error takes an ICMP error about a tunnel packet. The tables are the new ones when
// the packet's sender is told.
func (e *ears) Error(err *outer.Error) {
	a := (*Agent)(e)
	known, changed := a.paths.Note(err, time.Now(), pathLife(err.Peer))
	if !known {
		return
	}
	if changed {
		mtus := a.paths.MTUs()
		a.log.Info("the path to a peer is narrow", "peer", err.Peer, "mtu", mtus[err.Peer], "says", err.From)
		a.program.SetPathMTUs(mtus)
	}
	if port, ok := a.portTowards(err.Peer); ok && err.Kind == outer.TooBig && err.Inner != nil {
		a.engine.TellSender(port, err.Inner)
	}
}

// Datagram takes a tunnel packet that the kernel has put together. Flows stay at one
// worker, as far as the sender's choice of the outer source port lets them.
func (e *ears) Datagram(d *outer.Datagram) {
	a := (*Agent)(e)
	port, ok := a.portTowards(d.Peer)
	known, tell := a.paths.NoteFragments(d, time.Now())
	if tell {
		a.log.Warn("a peer's tunnel packets come in fragments, which is slow: make its pods' MTU smaller, at most that of the fragments less the tunnel's headers",
			"peer", d.Peer, "fragment", d.Fragment)
	}
	if !ok { // nobody's port: that of any uplink counts it
		port, ok = a.anyUplink()
	}
	if !ok {
		return // no uplink is held: the node is not ready, and carries nothing
	}
	hash := uint32(0)
	if known {
		hash = d.Hash()
	}
	if !a.engine.Inject(port, hash, d.Frame) {
		a.engine.Lost(port, 1, drop.OuterFragment)
	}
}

// Lost counts what the kernel put together faster than it was taken.
func (e *ears) Lost(n uint64) {
	a := (*Agent)(e)
	if port, ok := a.anyUplink(); ok {
		a.engine.Lost(port, n, drop.OuterFragment)
	}
}

// portTowards is the port of the uplink that leads to a peer.
func (a *Agent) portTowards(peer netip.Addr) (uint16, bool) {
	nh, err := a.underlay.NextHop(peer)
	if err != nil {
		return 0, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.uplinks[nh.Dev]
	if u == nil || !u.taken {
		return 0, false
	}
	return u.port, true
}

// anyUplink is the port of some uplink.
func (a *Agent) anyUplink() (uint16, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range a.uplinks {
		if u.taken {
			return u.port, true
		}
	}
	return 0, false
}

// expirePaths forgets path MTUs that are old: the path may have become wider.
func (a *Agent) expirePaths() {
	gone := a.paths.Expire(time.Now())
	for _, peer := range gone {
		a.log.Info("the path to a peer is taken to be wide again", "peer", peer)
	}
	if len(gone) > 0 {
		a.program.SetPathMTUs(a.paths.MTUs())
	}
}

// pathLife is how long the kernel would remember a path MTU to a peer.
func pathLife(peer netip.Addr) time.Duration {
	const usual = 600 // RT_... of net/ipv4/route.c, ip_rt_mtu_expires
	family := "ipv6"
	if peer.Is4() {
		family = "ipv4"
	}
	text, err := os.ReadFile("/proc/sys/net/" + family + "/route/mtu_expires")
	seconds, errNumber := strconv.Atoi(strings.TrimSpace(string(text)))
	if errors.Join(err, errNumber) != nil || seconds <= 0 {
		seconds = usual
	}
	return time.Duration(seconds) * time.Second
}

// outerStatus is what the underlay did to tunnel packets.
func (a *Agent) outerStatus() api.Outer {
	counts, fragmented := a.paths.Totals()
	s := api.Outer{Errors: map[string]uint64{}, Narrowed: len(a.paths.MTUs()), Fragmented: fragmented}
	for k, n := range counts {
		s.Errors[outer.Kind(k).String()] = n
	}
	return s
}

// describePath adds to a peer what is known of the path to it.
func describePath(p *api.Peer, path outer.Path) {
	if path.MTU != 0 {
		p.PMTU, p.Expires = path.MTU, max(int(time.Until(path.Until).Seconds()), 0)
	}
	for k, n := range path.Errors {
		if n == 0 {
			continue
		}
		if p.Errors == nil {
			p.Errors = map[string]uint64{}
		}
		p.Errors[outer.Kind(k).String()] = n
	}
	p.Fragmented, p.Fragment = path.Fragmented, path.Fragment
}
