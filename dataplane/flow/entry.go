package flow

import (
	"sync/atomic"

	"culvert/internal/packet"
)

// Direction of a packet in its flow.
type Direction uint8

const (
	// Original is the direction of the flow's first packet.
	Original Direction = iota
	// Reply is the other one.
	Reply
)

// Other is the opposite direction.
func (d Direction) Other() Direction { return d ^ 1 }

// String is "original" or "reply".
func (d Direction) String() string {
	if d == Original {
		return "original"
	}
	return "reply"
}

// Entry is one connection. It lives in the table's memory; a worker may hold it
// from Lookup or Insert until it calls Quiesce. All its methods are safe for
// several workers at once.
type Entry struct {
	half    [2]half
	counts  [2]counter
	ctl     atomic.Uint64 // a control
	self    uint32        // the entry's own index
	changed atomic.Uint32 // the next changed entry; in entry 0 the first
	timer   links         // under the mutex: entries of the same timer slot
	order   links         // under the mutex: entries of the same class, or free ones
}

// half is what belongs to one direction: a cache line.
type half struct {
	// key is written before the entry enters the table and then stays.
	key     packet.Key
	verdict atomic.Uint64 // generation and adjacency
	ctx     atomic.Uint64
	// seq is odd while the entry is in the table; it changes whenever the entry
	// enters or leaves.
	seq atomic.Uint32
	// mss is the maximum segment size; in the high half of the original
	// direction's is the flow's owner, which stays.
	mss atomic.Uint32
}

// counter counts one direction. It is written with add and read with load. The
// highest 16 bits of packets are a TCP flow's print: see window.go.
type counter struct{ packets, bytes uint64 }

const (
	printShift  = 48
	packetsMask = 1<<printShift - 1
)

// links are the neighbours in a doubly linked list, by index.
type links struct{ prev, next uint32 }

// Verdict is what the pipeline decided for one direction of a flow.
type Verdict struct {
	Gen uint32 // of the tables it was compiled from; 0 is no verdict
	Adj uint32 // a fib.AdjID
	Ctx uint64 // where the packets came from: it holds for no other origin
}

// verdictBusy stands in place of a verdict that is being stored.
const verdictBusy = 1<<64 - 1

// Verdict is the one stored last for that direction, all of it from the same
// SetVerdict, or the zero Verdict.
func (e *Entry) Verdict(dir Direction) Verdict {
	h := &e.half[dir&1]
	v := h.verdict.Load()
	ctx := h.ctx.Load()
	if v == verdictBusy || h.verdict.Load() != v {
		return Verdict{}
	}
	return Verdict{Gen: uint32(v >> 32), Adj: uint32(v), Ctx: ctx}
}

// SetVerdict stores v for that direction. When another worker is just storing
// one, v is dropped: the next packet resolves again.
func (e *Entry) SetVerdict(dir Direction, v Verdict) {
	h := &e.half[dir&1]
	old := h.verdict.Load()
	if old == verdictBusy || !h.verdict.CompareAndSwap(old, verdictBusy) {
		return
	}
	h.ctx.Store(v.Ctx)
	h.verdict.Store(uint64(v.Gen)<<32 | uint64(v.Adj))
}

// MSS is the maximum segment size in bytes that the sender of that direction
// announced, 0 if none was seen.
func (e *Entry) MSS(dir Direction) uint16 { return uint16(e.half[dir&1].mss.Load()) }

// SetMSS remembers what a SYN of that direction announced.
func (e *Entry) SetMSS(dir Direction, mss uint16) {
	w := &e.half[dir&1].mss
	w.Store(w.Load()&^0xffff | uint32(mss))
}

// owner is the one to whom the flow is counted while it is half-open.
func (e *Entry) owner() uint16 { return uint16(e.half[Original].mss.Load() >> 16) }

// FromHost reports whether the node's own stack sent the flow's first packet.
func (e *Entry) FromHost() bool { return e.owner() == Host }

// Key is the key of the packets of that direction.
func (e *Entry) Key(dir Direction) packet.Key { return e.half[dir&1].key }

// Counts are the packets and bytes of that direction.
func (e *Entry) Counts(dir Direction) (packets, bytes uint64) {
	n := &e.counts[dir&1]
	return load(&n.packets) & packetsMask, load(&n.bytes)
}

// State is the flow's state.
func (e *Entry) State() State { return control(e.ctl.Load()).state() }

// Expiry is the second at which the flow is gone if nothing more comes.
func (e *Entry) Expiry() uint32 { return e.deadline(control(e.ctl.Load())) }

// Assured reports whether the flow is evicted only after those that are not.
func (e *Entry) Assured() bool { return control(e.ctl.Load())&ctlAssured != 0 }

// Replied reports whether a packet came in the reply direction.
func (e *Entry) Replied() bool { return control(e.ctl.Load())&ctlReplied != 0 }
