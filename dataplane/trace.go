package dataplane

import (
	"fmt"
	"net/netip"

	"culvert/dataplane/flow"
	"culvert/encap"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// TraceStep is one table asked or one rule applied.
type TraceStep struct {
	Table  string // parse, flow, nat, spoof, fib, related, begin, adjacency, ttl, mtu, encap
	Key    string // what was looked up
	Result string // what was found and what follows
}

// Trace is the way one packet would take through the published tables.
type Trace struct {
	Info    packet.Info
	Steps   []TraceStep
	Verdict string      // forward, answer or drop
	Reason  drop.Reason // with verdict drop
	Port    string      // the egress, with verdict forward
	Header  []byte      // what would be written in front of the IP packet, with verdict forward
}

func (t *Trace) step(table, key, result string, args ...any) {
	t.Steps = append(t.Steps, TraceStep{table, key, fmt.Sprintf(result, args...)})
}

func (t *Trace) drop(r drop.Reason) Trace {
	t.Verdict, t.Reason = "drop", r
	return *t
}

// Trace says what would happen to a frame, from its Ethernet header on, that
// the named pod port received; without a name, the port of the pod whose
// address is the frame's source. Nothing is sent and no flow is made.
func (e *Engine) Trace(portName string, frame []byte) (Trace, error) {
	var t Trace
	if r := packet.Parse(frame, len(frame), &t.Info); r != drop.None {
		t.step("parse", fmt.Sprintf("%d bytes", len(frame)), "%s", r.What())
		return t.drop(r), nil
	}
	in, err := e.portFor(portName, t.Info.Key.Src)
	if err != nil {
		return t, err
	}
	t.step("parse", fmt.Sprintf("port %s", in.spec.Name), "%s, %d bytes, ttl %d", t.Info.Key, t.Info.L3Len, t.Info.TTL)
	snap := e.tables.Load()
	rec := record{info: t.Info, hash: t.Info.Key.Hash(), tos: t.Info.TOS, ctx: uint64(in.index) << 32}
	to, hit := e.traceFlow(&t, &rec)
	if !hit && mapKey(snap.Node(), &rec.info, traceL4(frame, &rec.info), &to) {
		t.step("nat", rec.info.Key.String(), "a mapped port: it becomes %s", to)
	}
	return e.traceDecision(&t, snap, in, &rec, &to, frame, hit), nil
}

// portFor finds a port by name, or the pod port that owns src.
func (e *Engine) portFor(name string, src packet.Addr) (*port, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.ports {
		switch {
		case p == nil || !p.ready:
		case name != "" && p.spec.Name == name:
			if !p.isPod() {
				return nil, fmt.Errorf("port %s is an %s: name a pod's port", name, p.spec.Kind)
			}
			return p, nil
		case name == "" && p.isPod() && p.hasAddr(&src):
			return p, nil
		}
	}
	if name != "" {
		return nil, fmt.Errorf("there is no port %s: 'culvert port' lists them", name)
	}
	return nil, fmt.Errorf("no pod of this node has the address %s: name the port that the packet arrives on", src)
}

// traceL4 is the frame from the transport header on.
func traceL4(frame []byte, info *packet.Info) []byte {
	if info.L4 == 0 {
		return nil
	}
	return frame[info.L4:min(len(frame), int(info.L3)+int(info.L3Len))]
}

// traceFlow shows whether the packet would be a hit, and returns the key that it would leave with
// then, its own otherwise. Of a TCP segment or an SCTP packet the sequence numbers or tags are
// not looked at: who asks has none.
func (e *Engine) traceFlow(t *Trace, rec *record) (to packet.Key, hit bool) {
	key := rec.info.Key
	if rec.info.Flags&packet.Trackable == 0 {
		t.step("flow", key.String(), "not tracked: routed packet by packet")
		return key, false
	}
	v, dir, ok := e.flows.Find(&key)
	if !ok {
		t.step("flow", key.String(), "miss")
		return key, false
	}
	t.step("flow", key.String(), "hit: %s direction, %s, %d s left", dir, v.State, v.Timeout)
	if to = v.Reply.Reverse(); dir == flow.Reply {
		to = v.Orig.Reverse()
	}
	if to != key {
		t.step("nat", key.String(), "translated: it becomes %s", to)
	}
	return to, true
}

// traceSource shows with which source the first packet of a flow leaves the cluster, or
// a pod reaches itself.
func (t *Trace) traceSource(snap *fib.Snapshot, key, to *packet.Key, adj *fib.Adjacency) drop.Reason {
	node := snap.Node()
	leaves := *to == *key && adj.Outside && node.NAT.Holds(&key.Src, &key.Dst)
	if !leaves && (*to == *key || to.Src != to.Dst) {
		return drop.None
	}
	own := node.Addr4
	if key.Family == 6 {
		own = node.Addr6
	}
	if own == (packet.Addr{}) {
		t.step("nat", key.Src.String(), "the node has no address of that family")
		return drop.NATExhausted
	}
	if !hasPorts(key) {
		t.step("nat", key.Src.String(), "leaves with %s", own)
		return drop.None
	}
	low, n := portRange(&node.NAT)
	t.step("nat", key.Src.String(), "leaves with %s and a free port from %d to %d", own, low, low+n-1)
	return drop.None
}

// traceError shows which flow an ICMP error is about; it is refused if there is none.
func (e *Engine) traceError(t *Trace, rec *record, frame []byte) drop.Reason {
	var q packet.Quote
	if !packet.ParseQuote(frame, &rec.info, &q) || q.Key.Src != rec.info.Key.Dst {
		t.step("related", rec.info.Key.String(), "it quotes no packet that its receiver has sent")
		return drop.ICMPUnrelated
	}
	if !e.flows.Knows(&q) {
		t.step("related", q.Key.String(), "%s", drop.ICMPUnrelated.What())
		return drop.ICMPUnrelated
	}
	t.step("related", q.Key.String(), "hit: the error is about that packet")
	return drop.None
}

// traceBegin shows whether a packet without a flow begins one.
func (e *Engine) traceBegin(t *Trace, rec *record, frame []byte) drop.Reason {
	key := rec.info.Key.String()
	switch flow.Begin(&rec.info, traceL4(frame, &rec.info)) {
	case flow.Alone:
		t.step("begin", key, "it begins no flow, and goes without one")
	case flow.Broken:
		t.step("begin", key, "%s", drop.FlowInvalid.What())
		return drop.FlowInvalid
	default:
		t.step("begin", key, "the first packet of a flow")
	}
	return drop.None
}

// traceDecision takes the packet through the forwarding decision to the
// headers it would leave with.
func (e *Engine) traceDecision(t *Trace, snap *fib.Snapshot, in *port, rec *record, to *packet.Key, frame []byte, hit bool) Trace {
	src, dst := rec.info.Key.Src.String(), to.Dst.String()
	if r := checkSource(snap, in, rec); r != drop.None {
		t.step("spoof", src, "%s", r.What())
		return t.drop(r)
	}
	t.step("spoof", src, "the pod's own address")
	id, adj, r := decide(snap, in, rec, to)
	switch {
	case adj == nil:
		t.step("fib", dst, "%s", r.What())
		return t.drop(r)
	case adj == &gatewayAdjacency:
		t.step("fib", dst, "the gateway itself")
	default:
		route, _, _ := snap.Lookup(to.Dst)
		t.step("fib", dst, "%s %s", route.Prefix, describe(adj))
	}
	if r != drop.None {
		t.step("adjacency", fmt.Sprint(id), "%s", r.What())
		return t.drop(r)
	}
	if adj.Kind == fib.KindLocal && adj.Rewrite.Len == 0 {
		if rec.info.Flags&packet.ICMPEcho != 0 {
			t.Verdict = "answer"
			return *t
		}
		return t.drop(drop.HostUnreachable)
	}
	if rec.info.Flags&packet.ICMPError != 0 {
		if r := e.traceError(t, rec, frame); r != drop.None {
			return t.drop(r)
		}
	} else if rec.info.Flags&packet.Trackable != 0 && !hit && (rec.info.TTL > 1 || adj.Kind == fib.KindLocal) {
		if r := e.traceBegin(t, rec, frame); r != drop.None {
			return t.drop(r)
		}
	}
	t.step("adjacency", fmt.Sprint(id), "ready, mtu %d, %d bytes of headers", adj.MTU, adj.Rewrite.Len)
	if !hit && rec.info.Flags&packet.Trackable != 0 {
		if r := t.traceSource(snap, &rec.info.Key, to, adj); r != drop.None {
			return t.drop(r)
		}
	}
	return e.traceEgress(t, in, rec, adj)
}

// traceEgress applies TTL and MTU and writes the headers.
func (e *Engine) traceEgress(t *Trace, in *port, rec *record, adj *fib.Adjacency) Trace {
	ttl := fmt.Sprint(rec.info.TTL)
	switch {
	case adj.Kind == fib.KindLocal:
		t.step("ttl", ttl, "stays: the node's own stack is no hop")
	case rec.info.TTL <= 1:
		t.step("ttl", ttl, "%s; the sender gets time exceeded", drop.TTLExceeded.What())
		return t.drop(drop.TTLExceeded)
	default:
		t.step("ttl", ttl, "leaves with %d", rec.info.TTL-1)
		rec.info.TTL--
	}
	if rec.info.L3Len > uint32(adj.MTU) {
		size := fmt.Sprint(rec.info.L3Len)
		switch {
		case rec.info.Proto == packet.ProtoTCP && rec.info.L3Len > uint32(in.spec.MTU):
			t.step("mtu", size, "cut into TCP segments that fit %d", adj.MTU)
		case rec.info.Flags&(packet.V4|packet.DF) == packet.V4:
			t.step("mtu", size, "fragmented to fit %d", adj.MTU)
		default:
			t.step("mtu", size, "%s; the sender gets the size %d", drop.TooBig.What(), adj.MTU)
			return t.drop(drop.TooBig)
		}
	}
	t.Header = make([]byte, adj.Rewrite.Len)
	inner := encap.InnerOf(&rec.info, encap.SourcePort(rec.hash), 1)
	adj.Rewrite.Push(t.Header, &inner)
	switch adj.Kind {
	case fib.KindVXLAN:
		t.step("encap", adj.Kind.String(), "source port %d", inner.SrcPort)
	case fib.KindIPIP:
		t.step("encap", adj.Kind.String(), "outer ttl %d and df %t, the packet's own", inner.TTL, inner.DF)
	default:
		t.step("encap", adj.Kind.String(), "none")
	}
	t.Verdict, t.Port = "forward", e.portName(adj.Port)
	return *t
}

func (e *Engine) portName(index uint16) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if index < maxPorts && e.ports[index] != nil && e.ports[index].ready {
		return e.ports[index].spec.Name
	}
	return ""
}

// describe is an adjacency in the words of 'ip route'.
func describe(adj *fib.Adjacency) string {
	s := adj.Kind.String()
	if adj.Via != (netip.Addr{}) {
		s += " via " + adj.Via.String()
	}
	if adj.Dev != "" {
		s += " dev " + adj.Dev
	}
	if adj.VNI != 0 {
		s += fmt.Sprintf(" vni %d mac %s", adj.VNI, adj.MAC)
	}
	return s
}
