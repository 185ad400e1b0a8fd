package dataplane

import (
	"culvert/dataplane/flow"
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// Ports of the node may be mapped to its pods. The first packet of a connection to one is
// translated like all that follow it, from wherever it comes: the world, other nodes, and
// pods. The node's own stack reaches itself without us.

// mapPort makes to, the key of a packet that is of no flow, that of the pod which the
// node's port is mapped to that the packet is for.
func (w *worker) mapPort(f *frame.Frame, rec *record, to *packet.Key) {
	if node := w.snap.Node(); len(node.Mappings) != 0 && w.in.port.spec.Kind != PortHost {
		mapKey(node, &rec.info, w.layer4(f, rec), to)
	}
}

// mapKey is mapPort for a packet of which info is known and the bytes from its transport
// header on, and reports whether to changed. What cannot begin a connection is left to the
// node: an answer to its own stack, for instance.
func mapKey(node *fib.Node, info *packet.Info, l4 []byte, to *packet.Key) bool {
	if info.Flags&packet.Trackable == 0 {
		return false
	}
	m := node.Mapping(to)
	if m == nil || flow.Begin(info, l4) != flow.Starts {
		return false
	}
	to.Dst, to.DstPort = m.To, m.ToPort
	return true
}

// insertMapped makes a flow of a packet for a mapped port, which becomes one of key to. A pod that
// comes to itself by a port of the node's has to see somebody else, or it would answer
// itself. So does one that is connected to the other directly from the same port.
func (w *worker) insertMapped(rec *record, adj *fib.Adjacency, to *packet.Key) drop.Reason {
	reply := to.Reverse()
	if to.Src != to.Dst {
		if r := w.insertReply(rec, adj, &reply); r != drop.NATExhausted {
			return r
		}
	}
	return w.masquerade(rec, adj, &reply)
}

// answersMapped finds the mapped port that a connection under way of which nothing is known, as
// after a restart, has come by: its pod goes on from a port that one is mapped to. reply gets it.
func (w *worker) answersMapped(rec *record, reply *packet.Key) bool {
	if rec.info.Proto != packet.ProtoTCP || rec.info.TCPFlags&packet.TCPSyn != 0 {
		return false
	}
	all, key := w.snap.Node().Mappings, &rec.info.Key
	for i := range all {
		if m := &all[i]; m.Proto == key.Proto && m.ToPort == key.SrcPort && m.To == key.Src {
			reply.Dst, reply.DstPort = m.Addr, m.Port
			return true
		}
	}
	return false
}

// besideTunnel turns an answer with the node's own address to another node itself away
// from the tunnel: that node has asked without one, and expects it so (rp_filter).
func (w *worker) besideTunnel(rec *record, to *packet.Key, id fib.AdjID, adj *fib.Adjacency) (fib.AdjID, *fib.Adjacency) {
	if !rec.nat || !adj.Kind.Tunnel() || !w.snap.IsPeer(to.Dst) {
		return id, adj
	}
	if host, way := hostAdjacency(w.snap, to.Family == 6); way != nil {
		return host, way
	}
	return id, adj
}
