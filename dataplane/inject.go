package dataplane

import (
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// maxInjected is how many packets may wait for a worker's turn.
const maxInjected = 64

// injected is a packet that came from no device.
type injected struct {
	port uint16
	data []byte
	// quote: it is what an ICMP error quotes of a packet that has left by the port.
	quote bool
	// lost: there is no packet; so many were lost for that reason.
	lost   uint64
	reason drop.Reason
}

// Inject hands the engine a frame as if a port had received it: one that the host's
// kernel has put together from fragments, whose worker is chosen by hash. The engine
// takes a copy. It reports false, and the frame is lost, if too many wait; Lost is to
// be told. Order with frames that the port receives is not kept.
func (e *Engine) Inject(port uint16, hash uint32, data []byte) bool {
	return e.post(hash, injected{port: port, data: data})
}

// Lost counts n frames as dropped at a port, for a reason, that never reached it.
func (e *Engine) Lost(port uint16, n uint64, r drop.Reason) {
	e.post(0, injected{port: port, lost: n, reason: r})
}

// TellSender judges a packet again that has left by a port and met an ICMP error on
// its way: quote is what that says of it, from the Ethernet header on. If by the tables
// in force it is too large for its destination, its sender, a pod of this node, is
// told so.
func (e *Engine) TellSender(port uint16, quote []byte) {
	e.post(0, injected{port: port, data: quote, quote: true})
}

// post leaves a packet for a worker.
func (e *Engine) post(hash uint32, p injected) bool {
	w := e.workers[hash%uint32(len(e.workers))]
	w.mail.Lock()
	if w.mail.done || len(w.mail.packets) >= maxInjected && p.reason == drop.None {
		w.mail.Unlock()
		return false
	}
	p.data = append([]byte(nil), p.data...)
	w.mail.packets = append(w.mail.packets, p)
	w.mail.pending.Store(true)
	w.mail.Unlock()
	w.wake()
	return true
}

// handleInjected handles the packets that came by mail, a burst of one each, and
// returns their number.
func (w *worker) handleInjected() int {
	if len(w.injected) == 0 {
		return 0
	}
	n := len(w.injected)
	for i := range w.injected {
		p := &w.injected[i]
		q := w.ports[p.port%maxPorts]
		switch {
		case q == nil: // the port has gone
		case p.reason != drop.None:
			bump(&q.counters.drops[p.reason], p.lost)
		case p.quote:
			w.judge(q, p.data)
		default:
			w.burst.Reset()
			if w.load(p.data) {
				w.process(q)
			} else {
				bump(&q.counters.drops[drop.NoBuffer], 1)
			}
		}
		w.injected[i] = injected{}
	}
	w.injected = w.injected[:0]
	return n
}

// load makes data the frame of an empty burst. It reports false, and the burst stays
// empty, if there is no memory.
func (w *worker) load(data []byte) bool {
	per := w.pool.ChunkSize() - frame.Headroom
	for first := true; first || len(data) > 0; first = false {
		addr, ok := w.pool.AllocSpare()
		if !ok {
			for i := range w.burst.N {
				w.pool.FreeFrame(&w.burst.Frames[i])
			}
			w.burst.Reset()
			return false
		}
		n := copy(w.pool.Bytes(addr, uint32(per)), data)
		data = data[n:]
		if d := (frame.Desc{Addr: addr, Len: uint32(n)}); first {
			w.burst.Add(d)
		} else {
			w.burst.Chain(d) // 64 KB have room in every burst
		}
	}
	return true
}

// judge is TellSender's part in the worker.
func (w *worker) judge(q *portQueue, quote []byte) {
	w.from, w.in, w.shared = q, q, false
	w.snap, w.budget = w.eng.tables.Load(), exceptionBudget
	w.burst.Reset()
	if len(quote) > w.pool.ChunkSize()-frame.Headroom || !w.load(quote) {
		return
	}
	w.beginWatch()
	f, rec := &w.burst.Frames[0], &w.recs[0]
	*rec = record{}
	const most = packet.EthernetLen + 65535 // the quote has the beginning of the packet
	if r := packet.Parse(w.pool.Bytes(f.Addr, f.Len), most, &rec.info); r == drop.None {
		w.tellTooBig(f, rec)
	}
	w.pool.FreeFrame(f)
	w.flush()
	w.endWatch()
}

// tellTooBig sends a pod of this node the error that its packet deserves, if it does.
func (w *worker) tellTooBig(f *frame.Frame, rec *record) {
	info := &rec.info
	if info.EtherType == packet.EtherTypeARP || info.Flags&(packet.V4|packet.DF) == packet.V4 {
		return
	}
	_, from := w.snap.Find(&info.Key.Src)
	_, to := w.snap.FindFlow(&info.Key)
	if from == nil || from.Kind != fib.KindPod || to == nil || !to.Kind.Tunnel() || info.L3Len <= uint32(w.largest(to)) {
		return
	}
	w.sendError(f, rec, &errTooBig, w.largest(to))
}
