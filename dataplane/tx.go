package dataplane

import (
	"culvert/dataplane/capture"
	"culvert/dataplane/frame"
	"culvert/internal/drop"
)

// enqueue stages a finished frame for its egress port. The worker owns it until
// the flush. A port that is gone costs the frame.
func (w *worker) enqueue(f *frame.Frame, index uint16) {
	q := w.ports[index%maxPorts]
	if q == nil {
		w.drop(f, w.in, drop.PortGone)
		return
	}
	if q.ntx == len(q.tx) {
		w.flushPort(q)
	}
	if q.ntx == 0 {
		w.staged = append(w.staged, index)
	}
	t := &q.tx[q.ntx]
	q.ntx++
	t.Addr, t.Len, t.Total = f.Addr, f.Len, f.Total
	t.CsumStart, t.CsumOffset, t.Flags = f.CsumStart, f.CsumOffset, f.Flags
	if t.SegSize = f.SegSize; t.SegSize != 0 {
		t.HeaderLen, t.OuterL4 = f.HeaderLen, f.OuterL4
	}
	if f.Rest != nil || t.Rest != nil { // a pointer store costs a write barrier's check
		t.Rest = f.Rest
	}
}

// flush sends what the burst has staged: one Send, and so one wake-up of the
// kernel, for each egress port.
func (w *worker) flush() {
	for _, index := range w.staged {
		if q := w.ports[index]; q != nil {
			w.flushPort(q)
			q.publish()
		}
	}
	w.staged = w.staged[:0]
	w.arena, w.groups.used = w.arena[:0], 0
}

// flushPort hands the staged frames to the port's device and drops, counted at
// that port, what it has no room for.
func (w *worker) flushPort(q *portQueue) {
	if q.ntx == 0 {
		return
	}
	if w.groups.open != 0 {
		w.closeGroups(q)
	}
	staged := q.tx[:q.ntx]
	q.ntx = 0
	if len(w.taps) != 0 {
		w.watchTx(q, staged)
	}
	sent := q.dev.Send(staged)
	packets, bytes := uint64(0), uint64(0)
	for i := range staged[:sent] { // the values are ours still, if the memory is not
		n, b := staged[i].OnWire()
		packets += n
		bytes += b
	}
	q.txPackets += packets
	q.txBytes += bytes
	if sent < len(staged) {
		w.dropUnsent(q, staged[sent:])
	}
	if q.limits.TxOnly && !q.late && q.dev.Sending() {
		q.late = true
		w.late = append(w.late, q)
	}
}

// dropUnsent ends frames that the port's device had no room for.
func (w *worker) dropUnsent(q *portQueue, frames []frame.Frame) {
	lost := uint64(0)
	for i := range frames {
		n, _ := frames[i].OnWire()
		lost += n
		if len(w.taps) != 0 {
			w.watch(&frames[i], q, capture.Drop, drop.TxRingFull)
		}
		w.pool.FreeFrame(&frames[i])
	}
	bump(&q.counters.drops[drop.TxRingFull], lost)
}
