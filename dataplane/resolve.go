package dataplane

import (
	"culvert/dataplane/flow"
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// forward takes a parsed frame to its egress port, or to a responder, or ends it.
func (w *worker) forward(f *frame.Frame, rec *record) {
	adj := w.verdict(rec)
	if adj == nil {
		var r drop.Reason
		if adj, r = w.resolve(f, rec); r != drop.None {
			w.refuse(f, rec, adj, r)
			return
		}
	}
	if adj.Kind == fib.KindLocal || w.in.port.spec.Kind == PortHost {
		if adj.Rewrite.Len == 0 {
			w.deliverLocal(f, rec)
			return
		}
		rec.same = true
	}
	if rec.info.TTL <= 1 && !rec.same {
		w.refuse(f, rec, adj, drop.TTLExceeded)
		return
	}
	if f.SegSize != 0 || rec.info.L3Len > uint32(adj.MTU) || len(f.Rest) != 0 && !w.takesChain(f, adj) {
		w.forwardBig(f, rec, adj)
		return
	}
	if !w.admit(f, rec, adj, rec.info.L3Len, 1) {
		return
	}
	w.ageHop(f, rec)
	if r := w.rewrite(f, &rec.info, adj, rec.hash); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	if rec.info.Proto == packet.ProtoTCP && rec.entry != nil && w.in.port.spec.Kind == PortUplink {
		w.enqueueSegment(f, rec, adj)
		return
	}
	rec.live = false
	w.enqueue(f, adj.Port)
}

// admit accounts for a frame in its flow. A frame that does not belong there, by
// its TCP window for instance, ends here.
func (w *worker) admit(f *frame.Frame, rec *record, adj *fib.Adjacency, bytes, packets uint32) bool {
	if rec.entry == nil {
		return true
	}
	if rec.info.Proto == packet.ProtoUDP {
		rec.entry.Touch(rec.dir, &rec.info, nil, bytes, packets, w.now) // never invalid
		return true
	}
	if rec.entry.Touch(rec.dir, &rec.info, w.layer4(f, rec), bytes, packets, w.now) == flow.Invalid {
		w.discard(f, rec, drop.FlowInvalid)
		return false
	}
	w.noteMSS(f, rec, adj)
	return true
}

// layer4 is what the first chunk has of the packet from the transport header on,
// nothing for a fragment without one.
func (w *worker) layer4(f *frame.Frame, rec *record) []byte {
	if rec.info.L4 == 0 {
		return nil
	}
	b := w.pool.Bytes(f.Addr, f.Len)
	return b[rec.info.L4:min(uint32(len(b)), uint32(rec.info.L3)+rec.info.L3Len)]
}

// verdict is the adjacency compiled into the frame's flow, or nil when there is
// no flow yet, the tables have changed, or the frame came another way.
func (w *worker) verdict(rec *record) *fib.Adjacency {
	if rec.entry == nil {
		return nil
	}
	v := rec.entry.Verdict(rec.dir)
	if v.Gen != w.snap.Gen() || v.Ctx&^ctxNAT != rec.ctx {
		return nil
	}
	rec.nat = v.Ctx&ctxNAT != 0
	return w.snap.Adjacency(fib.AdjID(v.Adj))
}

// resolve decides about the first packet of a flow, and again after a change of
// the tables, and compiles the decision into the flow. It returns the adjacency
// with drop.None, or the reason to refuse; the adjacency then is the one that
// was found, if any. A flow whose destination has left ends here.
func (w *worker) resolve(f *frame.Frame, rec *record) (*fib.Adjacency, drop.Reason) {
	to := w.translated(rec)
	if rec.entry == nil {
		w.mapPort(f, rec, &to)
	}
	id, adj, r := decide(w.snap, w.in.port, rec, &to)
	if r == drop.None && rec.entry != nil && rec.dir == flow.Reply {
		id, adj = w.backToHost(rec, rec.entry, id, adj)
		id, adj = w.besideTunnel(rec, &to, id, adj)
	}
	if r == drop.None && rec.entry != nil && rec.dir == flow.Original && w.outdated(rec, &to, adj) {
		w.flows.Drop(rec.entry)
		rec.entry, rec.nat = nil, false
		return w.resolve(f, rec)
	}
	if rec.entry != nil && (r == drop.NoRoute || r == drop.Blackhole || r == drop.Reject) {
		w.flows.Drop(rec.entry)
		rec.entry = nil
	}
	if r != drop.None {
		return adj, r
	}
	if rec.info.Flags&packet.ICMPError != 0 {
		return w.resolveError(f, rec, adj)
	}
	if adj.Rewrite.Len == 0 || rec.entry == nil && w.halfSeen(rec, adj) {
		return adj, drop.None
	}
	if rec.info.Flags&packet.Trackable == 0 {
		return adj, w.keepsSource(rec, adj)
	}
	if rec.entry == nil {
		if rec.info.TTL <= 1 && adj.Kind != fib.KindLocal && w.in.port.spec.Kind != PortHost {
			return adj, drop.TTLExceeded // it goes no further: no flow for a traceroute probe
		}
		switch flow.Begin(&rec.info, w.layer4(f, rec)) {
		case flow.Alone:
			return adj, w.keepsSource(rec, adj)
		case flow.Broken:
			return adj, drop.FlowInvalid
		}
		if r := w.insert(rec, adj, &to); r != drop.None {
			return adj, r
		}
	}
	ctx := rec.ctx
	if rec.nat {
		ctx |= ctxNAT
	}
	rec.entry.SetVerdict(rec.dir, flow.Verdict{Gen: w.snap.Gen(), Adj: uint32(id), Ctx: ctx})
	return adj, drop.None
}

// resolveError is resolve for an ICMP error, which is of the flow that it is about.
// Otherwise it is refused; the node's own stack may know more.
func (w *worker) resolveError(f *frame.Frame, rec *record, adj *fib.Adjacency) (*fib.Adjacency, drop.Reason) {
	about, dir, ok := w.related(f, rec)
	switch {
	case ok && translates(about):
		if r := w.translateError(f, rec, about, dir); r != drop.None {
			return adj, r
		}
		_, adj, r := decideRoute(w.snap, w.in.port, &rec.info.Key)
		return adj, r
	case adj.Rewrite.Len == 0:
		return adj, drop.None // answered here, or not
	case ok && dir == flow.Reply: // as an answer to the packet that it quotes would be
		_, adj = w.backToHost(rec, about, 0, adj)
		return adj, drop.None
	case ok, adj.Kind == fib.KindLocal && w.in.port.spec.Kind == PortUplink && rec.popped == 0:
		return adj, drop.None
	}
	return adj, drop.ICMPUnrelated
}

// insert makes a flow of its first packet, which is for where key to says.
func (w *worker) insert(rec *record, adj *fib.Adjacency, to *packet.Key) drop.Reason {
	if *to != rec.info.Key {
		return w.insertMapped(rec, adj, to)
	}
	if adj.Outside && w.snap.Node().NAT.Holds(&rec.info.Key.Src, &rec.info.Key.Dst) {
		return w.insertTranslated(rec, adj)
	}
	reply := rec.info.Key.Reverse()
	e, dir, refusal := w.flows.Insert(&rec.info.Key, &reply, w.owner(rec, adj), w.now)
	switch refusal {
	case flow.Accepted:
		rec.entry, rec.dir = e, dir
		return drop.None
	case flow.Limit:
		return drop.FlowLimit
	}
	return drop.FlowTableFull
}

// owner is to whom a new flow counts while it is half-open. Connections from the wire
// are their destination's: whose handshake it is to complete. Other protocols may
// go one way for good, and the pod cannot help what it is sent.
func (w *worker) owner(rec *record, adj *fib.Adjacency) uint16 {
	switch {
	case w.in.port.spec.Kind == PortHost:
		return flow.Host
	case w.in.port.spec.Kind != PortUplink:
		return w.in.port.index
	case adj.Kind == fib.KindPod && (rec.info.Proto == packet.ProtoTCP || rec.info.Proto == packet.ProtoSCTP):
		return flow.Towards(adj.Port)
	}
	return flow.Wire
}

// decide is the forwarding decision for a packet that came in through a port:
// anti-spoof, then FIB, then adjacency. to is what the packet's key is translated to,
// its own where it is not. It changes nothing, so that a trace can ask the same question.
func decide(snap *fib.Snapshot, in *port, rec *record, to *packet.Key) (fib.AdjID, *fib.Adjacency, drop.Reason) {
	if r := checkSource(snap, in, rec); r != drop.None {
		return 0, nil, r
	}
	return decideRoute(snap, in, to)
}

// decideRoute is decide for a packet whose source may be what it is.
func decideRoute(snap *fib.Snapshot, in *port, to *packet.Key) (fib.AdjID, *fib.Adjacency, drop.Reason) {
	if isGateway(&to.Dst) {
		return 0, &gatewayAdjacency, drop.None
	}
	id, adj := snap.FindFlow(to)
	if adj == nil {
		return 0, nil, drop.NoRoute
	}
	if adj.Outside && (!in.isPod() || snap.Node().InNetworks(&to.Dst)) {
		return id, adj, drop.NoRoute // the node's own packets for others, and others', leave without us
	}
	switch adj.Kind {
	case fib.KindBlackhole:
		return id, adj, drop.Blackhole
	case fib.KindReject:
		return id, adj, drop.Reject
	case fib.KindLocal:
		if in.spec.Kind == PortHost {
			return id, adj, drop.NoRoute // from the node to itself: a loop
		}
	case fib.KindPod:
	default:
		// Peers have their own routes to each other: what came from the wire
		// for the wire is a loop or a probe.
		if in.spec.Kind == PortUplink {
			return id, adj, drop.NoRoute
		}
	}
	if !adj.Ready {
		return id, adj, drop.NeighbourUnresolved
	}
	return id, adj, drop.None
}

// checkSource refuses a source address that does not belong to where the packet
// came from.
func checkSource(snap *fib.Snapshot, in *port, rec *record) drop.Reason {
	src := &rec.info.Key.Src
	if in.spec.Kind == PortHost {
		return drop.None // the node forwards for others, too: connections to Services, for instance
	}
	if in.spec.Kind != PortUplink {
		// Of their link-local addresses pods may ask the gateway whether it is there.
		if in.hasAddr(src) || src.IsLinkLocal() && rec.info.Key.Dst == Gateway6 {
			return drop.None
		}
		return drop.SpoofedSource
	}
	if rec.popped == 0 {
		return checkRouted(snap, rec)
	}
	if !snap.IsPeer(rec.peer) {
		return drop.TunnelUnknownPeer
	}
	if *src == rec.peer {
		return drop.None // ICMP errors come from the node's own address
	}
	if !snap.ViaPeer(src, rec.peer.Fold()) {
		return drop.TunnelSourceMismatch
	}
	return drop.None
}

// checkRouted is checkSource of a packet that came without a tunnel: its source is a
// pod of a peer that is reached without one, or such a peer itself, or out of the
// cluster. An ICMP error may come from any router on the way; that it speaks of a known
// flow is looked at later. To the node itself anybody may send: its stack decides.
func checkRouted(snap *fib.Snapshot, rec *record) drop.Reason {
	src, node := &rec.info.Key.Src, snap.Node()
	switch {
	case rec.info.Key.Dst == node.Addr4, rec.info.Key.Dst == node.Addr6:
		return drop.None
	case snap.ViaDirect(src), snap.IsDirectPeer(*src):
		return drop.None
	case isOutside(snap, src) && !node.NAT.Holds(&rec.info.Key.Dst, src):
		return drop.None // whom the pod would answer with its own address
	case rec.info.Flags&packet.ICMPError != 0 && !snap.Holds(src):
		return drop.None
	}
	return drop.RoutedSource
}

// refuse ends a frame that the node will not forward and, where a router would,
// tells its sender (RFC 1812 4.3.3, RFC 4443 3).
func (w *worker) refuse(f *frame.Frame, rec *record, adj *fib.Adjacency, r drop.Reason) {
	switch r {
	case drop.TTLExceeded:
		w.sendError(f, rec, &errTimeExceeded, 0)
	case drop.NoRoute:
		if w.in.port.spec.Kind != PortUplink {
			w.sendError(f, rec, &errNetUnreachable, 0)
		}
	case drop.HostUnreachable:
		w.sendError(f, rec, &errPortUnreachable, 0)
	case drop.Reject:
		w.sendError(f, rec, &errRejected, 0)
	case drop.NeighbourUnresolved:
		w.sendError(f, rec, &errHostUnreachable, 0)
	case drop.TooBig:
		w.sendError(f, rec, &errTooBig, w.largest(adj))
	}
	w.discard(f, rec, r)
}
