package dataplane

import (
	"culvert/dataplane/capture"
	"culvert/dataplane/flow"
	"culvert/dataplane/frag"
	"culvert/dataplane/frame"
	"culvert/encap"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// record is what the stages learn about one frame of the burst.
type record struct {
	info  packet.Info
	hash  uint64
	entry *flow.Entry
	// ctx says where the frame came from: the ingress port's index and, for a
	// tunnel packet, the peer. A flow's compiled verdict holds for one ctx.
	ctx  uint64
	dir  flow.Direction
	tos  uint8 // the inner packet's TOS after decapsulation
	peer packet.Addr
	live bool // the worker still owns the frame
	// popped is the number of bytes of tunnel headers that were in front.
	popped uint16
	// held is the first of the frames that have waited for this one, the first
	// fragment of their datagram.
	held frag.Handle
	heat uint32 // what Warm returns
	// in is the ingress port's queue of a frame that came by the intake.
	in *portQueue
	// same: it comes from the node's own stack or goes there, which is no hop.
	same bool
	// nat: its addresses are to be translated, to the other direction's of its flow.
	nat bool
}

// ingress parses a received frame into its record. Afterwards the frame's first
// byte is that of the pod's own Ethernet header, tunnel headers popped.
func (w *worker) ingress(f *frame.Frame, rec *record) {
	rec.live, rec.entry, rec.popped, rec.held, rec.same, rec.nat = true, nil, 0, 0, false, false
	if w.shared && !w.identify(f, rec) {
		return
	}
	if len(w.taps) != 0 {
		w.watch(f, w.in, capture.Rx, drop.None)
	}
	w.in.rxPackets++
	w.in.rxBytes += uint64(f.Total)
	switch w.in.port.spec.Kind {
	case PortUplink:
		w.ingressWire(f, rec)
	case PortHost:
		w.ingressHost(f, rec)
	default:
		w.ingressPod(f, rec)
	}
	if f.SegSize != 0 && rec.live {
		w.admitBig(f, rec)
	}
	if rec.info.Flags&packet.Fragment != 0 && rec.live {
		w.follow(f, rec)
	}
}

// ingressPod admits what a pod may send: its own MAC, to the gateway's.
func (w *worker) ingressPod(f *frame.Frame, rec *record) {
	b := w.pool.Bytes(f.Addr, f.Len)
	if r := packet.Parse(b, int(f.Total), &rec.info); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	if rec.info.L2Len != packet.EthernetLen {
		w.discard(f, rec, drop.EthertypeUnsupported)
		return
	}
	eth := packet.Ethernet(b)
	if f.Flags&frame.CsumPartial != 0 {
		w.settlePartial(f, &rec.info)
	}
	spec := &w.in.port.spec
	if eth.Src() != spec.PeerMAC {
		w.discard(f, rec, drop.SpoofedMAC)
		return
	}
	if f.SegSize != 0 && segKind(&rec.info) == 0 {
		w.discard(f, rec, drop.CannotSegment) // nothing that is answered here is big
		return
	}
	if rec.info.EtherType == packet.EtherTypeARP {
		w.answerARP(f, rec)
		return
	}
	// Neighbour discovery is of the link: to the group, or to the gateway's MAC
	// when the pod probes whether it is still there (RFC 4861 7.3).
	if rec.info.Proto == packet.ProtoICMPv6 && w.answerND(f, rec) {
		return
	}
	if dst := eth.Dst(); dst != spec.MAC {
		switch {
		case dst.IsGroup():
			w.discard(f, rec, drop.Multicast)
		default:
			w.discard(f, rec, drop.NotForUs)
		}
		return
	}
	rec.tos = rec.info.TOS
	rec.ctx = uint64(w.in.port.index) << 32
}

// settlePartial notes that the device knows the checksum to be partial; Parse has to
// guess from the field. A device may name another checksum than that of the
// packet's transport header: of a packet in a pod's own tunnel, or none at all, if
// the pod wrote the frame itself. That one is completed here, where it lies.
func (w *worker) settlePartial(f *frame.Frame, info *packet.Info) {
	offset, ok := packet.ChecksumOffset(info.Proto)
	if ok && info.L4 != 0 && f.CsumStart == info.L4 && int(f.CsumOffset) == offset && info.Flags&(packet.NoChecksum|packet.Fragment) == 0 {
		info.Flags |= packet.Partial
		return
	}
	f.Flags &^= frame.CsumPartial
	if f.SegSize != 0 || uint32(f.CsumStart)+uint32(f.CsumOffset)+2 > f.Len || f.CsumStart < info.Payload {
		return // in front of the payload nothing is to be completed but what Parse saw
	}
	w.sum.Reset(0)
	w.sum.Add(w.pool.Bytes(f.Addr, f.Len)[f.CsumStart:])
	for i := range f.Rest {
		w.sum.Add(w.pool.Bytes(f.Rest[i].Addr, f.Rest[i].Len))
	}
	packet.StoreChecksum(w.pool.Bytes(f.Addr, f.Len)[f.CsumStart+f.CsumOffset:], w.sum.Sum())
}

// ingressWire admits what comes from the underlay: in a tunnel to this node, or,
// where peers are reached without one, to a pod as it is.
func (w *worker) ingressWire(f *frame.Frame, rec *record) {
	b := w.pool.Bytes(f.Addr, f.Len)
	node := w.snap.Node()
	var outer encap.Outer
	r := encap.PopVXLAN(b, int(f.Total), &outer)
	switch {
	case node.Routed && outer.Dst != node.Addr4 && outer.Dst != node.Addr6:
		w.ingressRouted(f, rec)
	case r == drop.None:
		w.popVXLAN(f, rec, &outer)
	case r == drop.TunnelNotOurs && outer.Proto == packet.ProtoIPIP && outer.Dst == node.IPIP:
		w.popIPIP(f, rec, &outer)
	case node.Translates() && outer.Proto != packet.ProtoIPIP && isNoTunnel(node, &outer):
		w.ingressRouted(f, rec) // an answer to what left with the node's address, or for a mapped port
	default:
		w.discard(f, rec, r)
	}
}

// isNoTunnel reports whether a packet that PopVXLAN has refused is addressed to no VTEP.
func isNoTunnel(node *fib.Node, outer *encap.Outer) bool {
	_, r := localVTEP(node, outer)
	return outer.Proto != packet.ProtoUDP || r == drop.TunnelNotOurs
}

// popVXLAN admits a VXLAN packet for this node's VTEP.
func (w *worker) popVXLAN(f *frame.Frame, rec *record, outer *encap.Outer) {
	node := w.snap.Node()
	vtep, r := localVTEP(node, outer)
	if r == drop.TunnelNotOurs && node.Translates() {
		w.ingressRouted(f, rec) // it only looks like VXLAN
		return
	}
	if r != drop.None {
		w.discard(f, rec, r)
		return
	}
	if r := checkInnerMACs(outer, vtep); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	w.trim(f, outer.End)
	w.ingressInner(f, rec, outer, outer.InnerOffset)
}

// popIPIP admits an IPIP packet for this node. An Ethernet header takes the place of
// the outer IP header's end, so that the packet is like all others from there on.
func (w *worker) popIPIP(f *frame.Frame, rec *record, outer *encap.Outer) {
	b := w.pool.Bytes(f.Addr, f.Len)
	if r := encap.OpenIPIP(b, outer); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	w.trim(f, outer.End)
	start := outer.InnerOffset - packet.EthernetLen
	eth := packet.Ethernet(b[start:])
	eth.SetDst(GatewayMAC)
	eth.SetSrc(GatewayMAC)
	eth.SetEtherType(packet.EtherTypeIPv4)
	w.ingressInner(f, rec, outer, start)
}

// ingressInner goes on with the frame inside a tunnel, which starts pop bytes into f.
func (w *worker) ingressInner(f *frame.Frame, rec *record, outer *encap.Outer, pop uint16) {
	rec.popped = pop
	f.Addr += uint64(pop)
	f.Len -= uint32(pop)
	f.Total -= uint32(pop)
	b := w.pool.Bytes(f.Addr, f.Len)
	if r := packet.Parse(b, int(f.Total), &rec.info); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	if rec.info.L2Len != packet.EthernetLen {
		w.discard(f, rec, drop.EthertypeUnsupported)
		return
	}
	if rec.info.EtherType == packet.EtherTypeARP {
		// Neighbours are static in a layer-3 overlay: nobody asks.
		w.discard(f, rec, drop.ARPIgnored)
		return
	}
	if f.Flags&frame.CsumPartial != 0 {
		if f.CsumStart < pop {
			w.discard(f, rec, drop.CannotSegment) // the outer datagrams are merged: not ours to take apart
			return
		}
		f.CsumStart -= pop
		w.settlePartial(f, &rec.info)
	}
	if !outer.Dst.Is4() && !w.outerSumOK(f, &rec.info, outer) {
		w.discard(f, rec, drop.OuterChecksum)
		return
	}
	var r drop.Reason
	if rec.tos, r = encap.DecapECN(outer.TOS, rec.info.TOS); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	rec.peer = outer.Src
	rec.ctx = uint64(w.in.port.index)<<32 | uint64(outer.Src.Fold())
}

// ingressRouted admits a packet that came as it is. Whether its sender may is
// looked at when its flow begins (checkRouted).
func (w *worker) ingressRouted(f *frame.Frame, rec *record) {
	b := w.pool.Bytes(f.Addr, f.Len)
	if r := packet.Parse(b, int(f.Total), &rec.info); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	if packet.Ethernet(b).Dst() != w.in.port.spec.MAC {
		w.discard(f, rec, drop.NotForUs)
		return
	}
	if f.Flags&frame.CsumPartial != 0 {
		w.settlePartial(f, &rec.info)
	}
	rec.tos, rec.peer = rec.info.TOS, packet.Addr{}
	rec.ctx = uint64(w.in.port.index) << 32
}

// localVTEP finds the VTEP that the outer headers address. The steering program
// lets nothing else through; it may lag behind a change of address.
func localVTEP(n *fib.Node, o *encap.Outer) (*fib.LocalVTEP, drop.Reason) {
	r := drop.TunnelNotOurs
	for i := range n.VTEPs {
		v := &n.VTEPs[i]
		if v.Addr != o.Dst || v.Port != o.DstPort {
			continue
		}
		if v.VNI == o.VNI {
			return v, drop.None
		}
		r = drop.VXLANUnknownVNI
	}
	return nil, r
}

// checkInnerMACs applies vxlan_set_mac and eth_type_trans of the kernel's VXLAN:
// our own source MAC is a loop, another destination MAC is not for us.
func checkInnerMACs(o *encap.Outer, v *fib.LocalVTEP) drop.Reason {
	if o.InnerSrc == v.MAC {
		return drop.VXLANLoop
	}
	if o.InnerDst != v.MAC {
		return drop.VXLANInnerMAC
	}
	return drop.None
}

// lookup finds the flows of the burst: the only table lookup of an established one.
func (w *worker) lookup(recs []record) {
	hashes, probes := w.hashes[:len(recs)], w.probes[:len(recs)]
	for i := range recs {
		hashes[i] = recs[i].info.Key.Hash() // of a frame that is gone, too: it is not looked at
	}
	w.flows.BeginLookups(hashes, probes)
	for i := range recs {
		rec := &recs[i]
		rec.hash = hashes[i]
		if !rec.live || rec.info.Flags&packet.Trackable == 0 {
			continue
		}
		if e, dir, ok := w.flows.FinishLookup(&rec.info.Key, rec.hash, probes[i]); ok {
			rec.entry, rec.dir = e, dir
			rec.heat = e.Warm(rec.info.Proto != packet.ProtoUDP)
		}
	}
}

// lookupAlone is lookup for a frame that the burst's was too early for.
func (w *worker) lookupAlone(rec *record) {
	rec.hash = rec.info.Key.Hash()
	if rec.info.Flags&packet.Trackable == 0 {
		return
	}
	if e, dir, ok := w.flows.Lookup(&rec.info.Key, rec.hash); ok {
		rec.entry, rec.dir = e, dir
	}
}
