package flow

import "culvert/internal/packet"

// Related finds the flow that an ICMP error speaks of: that of the quoted packet.
// dir is the direction of the error, the opposite of the quoted packet's. A quoted
// TCP segment must be one that its sender may be waiting for (RFC 5927 4.1), so
// that knowing the ports is not enough to forge an error.
//
// The search is for the answer to the quoted packet: after a translation of
// addresses only that direction has the quoted ones (nf_conntrack_inet_error,
// net/netfilter/nf_conntrack_proto_icmp.c). The rules for callers are Lookup's.
func (t *Table) Related(q *packet.Quote) (e *Entry, dir Direction, ok bool) {
	k := q.Key.Reverse()
	e, dir, ok = t.Lookup(&k, k.Hash())
	if ok && q.HasSeq && !e.outstanding(dir.Other(), q.Seq) {
		return nil, Original, false
	}
	return e, dir, ok
}

// Knows is whether Related finds a flow, for those that are no workers.
func (t *Table) Knows(q *packet.Quote) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries == nil {
		return false // closed
	}
	_, _, ok := t.Related(q)
	return ok
}

// outstanding reports whether a direction may have sent seq without an
// acknowledgment until now.
func (e *Entry) outstanding(dir Direction, seq uint32) bool {
	c := control(e.ctl.Load())
	if c.kind() != kindTCP || c&ctlLiberal != 0 || c.state() == None {
		return true // not known
	}
	t := e.loadTrack()
	s, r := &t.window[dir&1], &t.window[dir.Other()&1]
	if s.maxwin() == 0 || after(seq, s.end) {
		return s.maxwin() == 0
	}
	return r.meta&metaAcked == 0 || !before(seq, r.maxack-1) // a keep-alive is one before
}
