package dataplane

import (
	"culvert/dataplane/flow"
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// exceptionBudget is the number of ARP, ND and ICMP answers per burst. What is
// above it is dropped, so that a flood of exceptions cannot starve flows.
const exceptionBudget = 16

// The gateway that every pod sees, as Calico gives it
// (cni-plugin/pkg/dataplane/linux/dataplane_linux.go).
var (
	// GatewayMAC is the host side of every pod port.
	GatewayMAC = packet.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	// Gateway4 is 169.254.1.1, GatewayMAC's IPv4 address.
	Gateway4 = packet.Addr{10: 0xff, 11: 0xff, 12: 169, 13: 254, 14: 1, 15: 1}
	// Gateway6 is fe80::ecee:eeff:feee:eeee, GatewayMAC's EUI-64 link-local address.
	Gateway6 = packet.Addr{0: 0xfe, 1: 0x80, 8: 0xec, 9: 0xee, 10: 0xee, 11: 0xff, 12: 0xfe, 13: 0xee, 14: 0xee, 15: 0xee}
)

// gatewayAdjacency is where packets for the gateway itself go.
var gatewayAdjacency = fib.Adjacency{Kind: fib.KindLocal, Ready: true, MTU: 65535}

func isGateway(a *packet.Addr) bool { return *a == Gateway4 || *a == Gateway6 }

// spend takes one exception from the burst's budget.
func (w *worker) spend() bool {
	w.budget--
	return w.budget >= 0
}

// answerARP answers a pod's request for the gateway, and for any address that
// is reached through it, with the gateway's MAC: proxy ARP (RFC 1027) as the
// kernel does on Calico's veths. The pod's own addresses are left to the pod.
func (w *worker) answerARP(f *frame.Frame, rec *record) {
	b := w.pool.Bytes(f.Addr, f.Len)
	p := w.in.port
	if len(b) < packet.EthernetLen+packet.ARPLen || !packet.ARP(b[packet.EthernetLen:]).Valid() {
		w.discard(f, rec, drop.ARPInvalid)
		return
	}
	h := packet.ARP(b[packet.EthernetLen:])
	sender, target := h.SenderIP(), h.TargetIP()
	switch {
	case !p.hasAddr(&sender) && sender.V4() != 0:
		w.discard(f, rec, drop.SpoofedSource)
	case p.hasAddr(&target) || !isGateway(&target) && !w.reachable(target):
		w.discard(f, rec, drop.ARPIgnored)
	case !w.spend():
		w.discard(f, rec, drop.ExceptionBudget)
	default:
		if r := packet.ARPReply(b, p.spec.MAC); r != drop.None {
			w.discard(f, rec, r)
			return
		}
		w.answer(f, rec)
	}
}

// answerND answers a pod's neighbour solicitation for the gateway with the
// gateway's MAC (RFC 4861 7.2.4) and ends every other neighbour discovery
// packet: it is of the link and never forwarded. It reports whether it took the
// frame.
func (w *worker) answerND(f *frame.Frame, rec *record) bool {
	info := &rec.info
	if info.Proto != packet.ProtoICMPv6 || info.L4 == 0 ||
		info.ICMPType < packet.ICMP6RouterSolicit || info.ICMPType > packet.ICMP6Redirect {
		return false
	}
	b := w.pool.Bytes(f.Addr, f.Len)
	target, ok := packet.NDTarget(b, info)
	switch {
	case !ok || !isGateway(&target):
		w.discard(f, rec, drop.NDIgnored)
	case !w.spend():
		w.discard(f, rec, drop.ExceptionBudget)
	default:
		n, r := packet.NDReply(b, info, w.in.port.spec.MAC)
		if r != drop.None {
			w.discard(f, rec, r)
			break
		}
		w.trim(f, uint32(n))
		w.answer(f, rec)
	}
	return true
}

// reachable reports whether the FIB leads somewhere for a.
func (w *worker) reachable(a packet.Addr) bool {
	_, adj := w.snap.Find(&a)
	return adj != nil && adj.Kind != fib.KindBlackhole && adj.Kind != fib.KindReject
}

// answer sends the received frame, rewritten in place, back to where it came from.
func (w *worker) answer(f *frame.Frame, rec *record) {
	rec.live = false
	f.Flags = 0
	w.enqueue(f, w.in.port.index)
}

// deliverLocal takes a packet for the gateway or for one of the node's own
// addresses: echo requests are answered, everything else is refused.
func (w *worker) deliverLocal(f *frame.Frame, rec *record) {
	info := &rec.info
	if info.Flags&packet.Fragment != 0 {
		w.discard(f, rec, drop.FragmentToNode)
		return
	}
	if info.Flags&packet.ICMPEcho == 0 {
		if info.Proto == packet.ProtoICMP || info.Proto == packet.ProtoICMPv6 {
			w.discard(f, rec, drop.ICMPIgnored)
			return
		}
		w.refuse(f, rec, nil, drop.HostUnreachable)
		return
	}
	if !w.spend() {
		w.discard(f, rec, drop.ExceptionBudget)
		return
	}
	b := w.pool.Bytes(f.Addr, f.Len)
	reply := packet.EchoReply4
	if info.Flags&packet.V6 != 0 {
		reply = packet.EchoReply6
	}
	if r := reply(b, info); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	if rec.info.Key.Src.IsLinkLocal() { // the pod's own, which no route leads to
		eth := packet.Ethernet(b)
		eth.SetDst(w.in.port.spec.PeerMAC)
		eth.SetSrc(w.in.port.spec.MAC)
		w.answer(f, rec)
		return
	}
	rec.live = false
	w.originate(f)
}

// related finds the flow that an ICMP error is about, and the direction of an answer to
// the packet that it quotes, which its receiver must have sent. No other error is forwarded: it
// can only be forged, or too late to be of use, and Linux calls it INVALID.
func (w *worker) related(f *frame.Frame, rec *record) (*flow.Entry, flow.Direction, bool) {
	var q packet.Quote
	if !packet.ParseQuote(w.pool.Bytes(f.Addr, f.Len), &rec.info, &q) || q.Key.Src != rec.info.Key.Dst {
		return nil, 0, false
	}
	return w.flows.Related(&q)
}

// icmpError is an ICMP error in both families.
type icmpError struct{ type4, code4, type6, code6 uint8 }

// The errors that a router sends (RFC 1812 4.3.3, RFC 4443 3).
var (
	errTimeExceeded    = icmpError{packet.ICMPTimeExceeded, 0, packet.ICMP6TimeExceeded, 0}
	errTooBig          = icmpError{packet.ICMPUnreachable, packet.ICMPFragNeeded, packet.ICMP6PacketTooBig, 0}
	errNetUnreachable  = icmpError{packet.ICMPUnreachable, packet.ICMPNetUnreachable, packet.ICMP6Unreachable, packet.ICMP6NoRoute}
	errHostUnreachable = icmpError{packet.ICMPUnreachable, packet.ICMPHostUnreachable, packet.ICMP6Unreachable, packet.ICMP6AddrUnreachable}
	// As an 'unreachable' route of Linux: ip_error of net/ipv4/route.c,
	// ip6_pkt_discard of net/ipv6/route.c.
	errRejected        = icmpError{packet.ICMPUnreachable, packet.ICMPHostUnreachable, packet.ICMP6Unreachable, packet.ICMP6NoRoute}
	errPortUnreachable = icmpError{packet.ICMPUnreachable, packet.ICMPPortUnreachable, packet.ICMP6Unreachable, packet.ICMP6PortUnreachable}
)

// sendError tells the sender of a refused packet why. mtu is the size that would fit, for errTooBig. The refused frame is
// left to the caller. Nothing is sent where the RFCs forbid it, or beyond the
// burst's budget.
func (w *worker) sendError(f *frame.Frame, rec *record, e *icmpError, mtu uint16) {
	if w.budget <= 0 {
		return
	}
	v4 := rec.info.Flags&packet.V4 != 0
	from := w.errorSource(v4, rec.popped != 0 && e != &errTimeExceeded)
	addr, ok := w.pool.Alloc()
	if !ok {
		return
	}
	const eth = packet.EthernetLen
	room := w.pool.Bytes(addr, uint32(w.pool.TailroomOf(addr)))
	orig := w.pool.Bytes(f.Addr, f.Len)[rec.info.L3:]
	n := 0
	if v4 {
		n = packet.BuildICMPError4(room[eth:], orig, &rec.info, from, e.type4, e.code4, mtu)
	} else {
		big := uint32(0)
		if e == &errTooBig {
			big = max(uint32(mtu), 1280)
		}
		n = packet.BuildICMPError6(room[eth:], orig, &rec.info, from, e.type6, e.code6, big)
	}
	if n == 0 {
		w.pool.Free(addr)
		return
	}
	w.budget--
	packet.Ethernet(room).SetEtherType(rec.info.EtherType)
	out := frame.Frame{Addr: addr, Len: uint32(eth + n), Total: uint32(eth + n)}
	w.originate(&out)
}

// errorSource is the address that the node's ICMP errors come from: its own. Those
// that go back into a tunnel come from its tunnel address, as Linux's do, whose
// route to the sender is by the tunnel device (icmp_route_lookup in
// net/ipv4/icmp.c): a kernel node with strict rp_filter there drops everything from
// an address that it reaches another way, and its pods would learn of no path MTU.
// Time exceeded alone is from the node's own address all the same, so that a
// traceroute names the nodes that it passes.
func (w *worker) errorSource(v4, tunnel bool) packet.Addr {
	n := w.snap.Node()
	own, inside, gateway := &n.Addr6, &n.Tunnel6, Gateway6
	if v4 {
		own, inside, gateway = &n.Addr4, &n.Tunnel4, Gateway4
	}
	none := packet.Addr{}
	switch {
	case *inside != none && (tunnel || *own == none):
		return *inside
	case *own != none:
		return *own
	}
	return gateway
}

// originate sends a packet of the node's own: routed, never a flow, its TTL as
// built. What answers the node's stack goes there, which may have sent the packet for
// somebody else. A packet that cannot be routed ends here, counted at the ingress port.
func (w *worker) originate(f *frame.Frame) {
	var info packet.Info
	r := packet.Parse(w.pool.Bytes(f.Addr, f.Len), int(f.Total), &info)
	if r == drop.None {
		_, adj := w.snap.Find(&info.Key.Dst)
		if w.in.port.spec.Kind == PortHost {
			_, adj = hostAdjacency(w.snap, info.Flags&packet.V6 != 0)
		}
		switch {
		case adj == nil:
			r = drop.NoRoute
		case adj.Kind == fib.KindLocal && adj.Rewrite.Len == 0 || adj.Kind == fib.KindBlackhole || adj.Kind == fib.KindReject:
			r = drop.NoRoute
		case !adj.Ready:
			r = drop.NeighbourUnresolved
		case info.L3Len > uint32(adj.MTU):
			r = drop.TooBig
		default:
			if r = w.rewrite(f, &info, adj, info.Key.Hash()); r == drop.None {
				w.enqueue(f, adj.Port)
				return
			}
		}
	}
	w.drop(f, w.in, r)
}
