package dataplane

import (
	"culvert/dataplane/flow"
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// A flow whose two keys are not each other's reverse is translated: a packet of one
// direction leaves as an answer to the other one would be addressed. So nothing is
// stored for it but the keys, and a packet of a flow that is not translated pays one
// branch.
//
// Pods' packets that leave the cluster get the node's own address and a port of a range
// that the node's stack does not use by itself. Several flows may have the same one as
// long as their destinations differ: the flow table, whose keys are unique, decides.

// ctxNAT marks the verdict of a direction whose packets are translated. The ports'
// indices leave the bit alone.
const ctxNAT = 1 << 63

// translated is the key of the packet as it leaves, and notes whether that is another
// one than it came with.
func (w *worker) translated(rec *record) packet.Key {
	if rec.entry == nil {
		return rec.info.Key
	}
	to := rec.entry.Key(rec.dir.Other())
	to = to.Reverse()
	rec.nat = to != rec.entry.Key(rec.dir)
	return to
}

// translates reports whether the packets of a flow are translated.
func translates(e *flow.Entry) bool {
	reply := e.Key(flow.Reply)
	return e.Key(flow.Original) != reply.Reverse()
}

// translate does it, once the packet is accounted for in its flow.
func (w *worker) translate(f *frame.Frame, rec *record) {
	to := rec.entry.Key(rec.dir.Other())
	to = to.Reverse()
	packet.Translate(w.pool.Bytes(f.Addr, f.Len), &rec.info, &to)
}

// keepsSource refuses a packet that no flow is kept for if it would leave the cluster with a
// pod's address: nobody out there could answer, or should see it.
func (w *worker) keepsSource(rec *record, adj *fib.Adjacency) drop.Reason {
	if adj.Outside && w.snap.Node().NAT.Holds(&rec.info.Key.Src, &rec.info.Key.Dst) {
		return drop.NATUntracked
	}
	return drop.None
}

// outdated reports whether the flow of a packet of its original direction, which becomes
// one of key to and leaves by adj, is to begin anew: the tables say by now that it is to be
// translated, or to another address, or not. Somebody who goes on sending would keep
// it alive for ever. One that is answered without translation keeps its address.
func (w *worker) outdated(rec *record, to *packet.Key, adj *fib.Adjacency) bool {
	key, node := &rec.info.Key, w.snap.Node()
	if !rec.nat {
		return adj.Outside && !rec.entry.Replied() && node.NAT.Holds(&key.Src, &key.Dst)
	}
	if to.Dst != key.Dst {
		return false // by a mapped port
	}
	return to.Src != node.Addr4 && to.Src != node.Addr6 || adj.Kind == fib.KindLocal && !adj.Outside
}

// maxPortTries bounds what the first packet of a flow costs when many ports are taken.
const maxPortTries = 128

// insertTranslated makes a flow of a pod's packet that leaves the cluster.
func (w *worker) insertTranslated(rec *record, adj *fib.Adjacency) drop.Reason {
	reply := rec.info.Key.Reverse()
	if w.answersMapped(rec, &reply) {
		return w.insertReply(rec, adj, &reply)
	}
	return w.masquerade(rec, adj, &reply)
}

// masquerade makes a flow of a pod's packet that gets the node's own address and a port that
// no other flow to that destination has: the pod's own port if it can be, for a peer that
// knows it. reply is the answers' key but for that.
func (w *worker) masquerade(rec *record, adj *fib.Adjacency, reply *packet.Key) drop.Reason {
	node := w.snap.Node()
	key, own := &rec.info.Key, node.Addr4
	if key.Family == 6 {
		own = node.Addr6
	}
	if own == (packet.Addr{}) {
		return drop.NATExhausted // the node has no address of that family
	}
	reply.Dst = own
	if !hasPorts(key) {
		return w.insertReply(rec, adj, reply)
	}
	low, n := portRange(&node.NAT)
	at := uint32(rec.hash>>32) % n
	if p := uint32(key.SrcPort); p >= low && p < low+n {
		at = p - low
	}
	for range min(n, maxPortTries) {
		reply.DstPort = uint16(low + at)
		if key.Proto == packet.ProtoICMP || key.Proto == packet.ProtoICMPv6 {
			reply.SrcPort = reply.DstPort // the identifier of both directions
		}
		if _, _, taken := w.flows.Lookup(reply, reply.Hash()); !taken {
			if r := w.insertReply(rec, adj, reply); r != drop.NATExhausted {
				return r
			}
		}
		if at++; at == n {
			at = 0
		}
	}
	return drop.NATExhausted
}

// portRange is the first port that translated sources have, and how many there are. Where
// no packet leaves the cluster by them, they are between this node's pods alone, and
// those that connections commonly come from (RFC 6335 6).
func portRange(nat *fib.NAT) (low, n uint32) {
	if nat.High == 0 {
		return 49152, 16384
	}
	return uint32(nat.Low), uint32(nat.High-nat.Low) + 1
}

// insertReply makes a flow of a packet whose answers have another key than its own
// reversed. drop.NATExhausted says that another flow has that one.
func (w *worker) insertReply(rec *record, adj *fib.Adjacency, reply *packet.Key) drop.Reason {
	e, dir, refusal := w.flows.Insert(&rec.info.Key, reply, w.owner(rec, adj), w.now)
	switch refusal {
	case flow.Accepted:
		rec.entry, rec.dir = e, dir
		w.translated(rec)
		return drop.None
	case flow.Limit:
		return drop.FlowLimit
	case flow.Clash:
		return drop.NATExhausted
	}
	return drop.FlowTableFull
}

// hasPorts reports whether a flow of that key is told from others by ports, or by the
// identifier of an echo.
func hasPorts(k *packet.Key) bool {
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		return true
	case packet.ProtoICMP:
		return k.Family == 4
	case packet.ProtoICMPv6:
		return k.Family == 6
	}
	return false
}

// translateError makes an ICMP error about a translated flow one that its receiver
// understands: dir is the direction of an answer to the quoted packet, which is the
// error's own.
func (w *worker) translateError(f *frame.Frame, rec *record, about *flow.Entry, dir flow.Direction) drop.Reason {
	if f.Len != f.Total {
		return drop.ICMPUnrelated // no router quotes so much (RFC 1812 4.3.2.3)
	}
	// The quoted packet is of the other direction as it left. It becomes what it came as.
	quoted := about.Key(dir.Other())
	src, dst := rec.info.Key.Src, quoted.Src
	if mine := about.Key(dir); src == mine.Src { // not from a router on the way
		src = quoted.Dst
	}
	packet.TranslateError(w.pool.Bytes(f.Addr, f.Len), &rec.info, &src, &dst, &quoted)
	return drop.None
}

// isOutside reports whether a is out of the cluster.
func isOutside(snap *fib.Snapshot, a *packet.Addr) bool {
	_, adj := snap.Find(a)
	return adj != nil && adj.Outside && !snap.Node().InNetworks(a)
}
