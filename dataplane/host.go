package dataplane

import (
	"culvert/dataplane/flow"
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// The node's own stack is behind a port like the pods', but it is the node: what it
// sends is sent already, by whatever address and for whomever, so that nothing is
// spoofed there and no hop is taken on the way. kube-proxy is in it. A pod's packet to
// a Service goes there, and comes back for the endpoint with the pod's address as
// its source; the endpoint's answer has to go the same way, for the pod knows nothing
// of the endpoint (backToHost).

// ingressHost admits what the node's own stack sends.
func (w *worker) ingressHost(f *frame.Frame, rec *record) {
	b := w.pool.Bytes(f.Addr, f.Len)
	if r := packet.Parse(b, int(f.Total), &rec.info); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	if f.Flags&frame.CsumPartial != 0 {
		w.settlePartial(f, &rec.info)
	}
	switch {
	case rec.info.L2Len != packet.EthernetLen:
		w.discard(f, rec, drop.EthertypeUnsupported)
	case rec.info.EtherType == packet.EtherTypeARP:
		w.discard(f, rec, drop.ARPIgnored) // the device has no neighbours to ask for
	case packet.Ethernet(b).Dst().IsGroup():
		w.discard(f, rec, drop.Multicast)
	case f.SegSize != 0 && segKind(&rec.info) == 0:
		w.discard(f, rec, drop.CannotSegment)
	default:
		rec.tos, rec.peer = rec.info.TOS, packet.Addr{}
		rec.ctx = uint64(w.in.port.index) << 32
	}
}

// backToHost turns an answer to what is of flow e back to the node's stack if that
// began the flow, wherever the answer's address leads.
func (w *worker) backToHost(rec *record, e *flow.Entry, id fib.AdjID, adj *fib.Adjacency) (fib.AdjID, *fib.Adjacency) {
	if w.in.port.spec.Kind == PortHost || !e.FromHost() {
		return id, adj
	}
	if to, host := hostAdjacency(w.snap, rec.info.Flags&packet.V6 != 0); host != nil {
		return to, host
	}
	return id, adj
}

// halfSeen reports whether only one direction of a packet's connection comes by here: what
// the uplink's program could not tell from a translated flow's is the stack's, which
// answers by the uplink itself, and what that sends from its own address to a peer that
// is reached without a tunnel is answered to it. Such a connection is no flow.
func (w *worker) halfSeen(rec *record, adj *fib.Adjacency) bool {
	node := w.snap.Node()
	switch w.in.port.spec.Kind {
	case PortUplink:
		return rec.popped == 0 && adj.Kind == fib.KindLocal
	case PortHost:
		return adj.Kind == fib.KindDirect && (rec.info.Key.Src == node.Addr4 || rec.info.Key.Src == node.Addr6)
	}
	return false
}

// hostAdjacency is the way to the node's own stack: where its own address leads. It
// is nil without a port to it.
func hostAdjacency(snap *fib.Snapshot, v6 bool) (fib.AdjID, *fib.Adjacency) {
	n := snap.Node()
	own := &n.Addr4
	if v6 && n.Addr6 != (packet.Addr{}) || n.Addr4 == (packet.Addr{}) {
		own = &n.Addr6
	}
	id, adj := snap.Find(own)
	if adj == nil || adj.Kind != fib.KindLocal || adj.Rewrite.Len == 0 {
		return 0, nil
	}
	return id, adj
}
