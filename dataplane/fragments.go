package dataplane

import (
	"sync/atomic"

	"culvert/dataplane/frag"
	"culvert/dataplane/frame"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// fragments is what a worker knows of datagrams that arrive in fragments. The
// first fragment of one takes the way of its flow, as if it were whole; the tracker
// tells the flow of the others, and which ones have to wait for the first.
type fragments struct {
	tracker *frag.Tracker
	held    []heldFrame   // by handle
	one     frag.Fragment // the one in hand
	gauges  fragmentGauges
}

// heldFrame is a frame that waits for the first fragment of its datagram, and all
// that the stages know of it. The worker owns it.
type heldFrame struct {
	frame frame.Frame
	rec   record
	in    *portQueue
	rest  [maxHeldChunks - 1]frame.Desc
}

// What a worker keeps of fragments, at most.
const (
	maxFragmented = 1024 // datagrams
	maxHeld       = 256  // chunks
	heldShare     = 16   // ... but one in so many of the worker's
	maxHeldEach   = 48   // frames of a datagram: 64 KB in fragments of 1400 bytes
	maxHeldChunks = 18   // of a frame: 64 KB in chunks of 4 KB
)

// expirePerTick bounds the datagrams given up in one tick.
const expirePerTick = 64

// fragmentGauges are written by the worker and read by anyone.
type fragmentGauges struct {
	datagrams, held  atomic.Uint32
	evicted, expired atomic.Uint64
}

func (g *fragmentGauges) publish(s frag.Stats) {
	g.datagrams.Store(uint32(s.Datagrams))
	g.held.Store(uint32(s.Held))
	g.evicted.Store(s.Evicted)
	g.expired.Store(s.Expired)
}

func (g *fragmentGauges) read() FragmentStats {
	return FragmentStats{
		Datagrams: int(g.datagrams.Load()), Held: int(g.held.Load()),
		Evicted: g.evicted.Load(), Expired: g.expired.Load(),
	}
}

func (fs *fragments) init(pool *frame.Pool) (err error) {
	held := max(min(maxHeld, pool.Chunks()/heldShare), 2)
	fs.tracker, err = frag.New(frag.Config{
		Datagrams: maxFragmented, Held: held, HeldEach: maxHeldEach, Chunks: maxHeldChunks, Ports: maxPorts,
	})
	fs.held = make([]heldFrame, held+2)
	return err
}

// follow gives a fragment the key of its datagram's flow. It takes the frame if it
// has to wait for the first fragment, and ends one that is not sound.
func (w *worker) follow(f *frame.Frame, rec *record) {
	if r := w.checkOrigin(rec); r != drop.None {
		w.discard(f, rec, r)
		return
	}
	one := &w.frags.one
	one.Piece = packet.PieceOf(w.pool.Bytes(f.Addr, f.Len), &rec.info)
	if one.Offset == 0 && !one.More {
		return // all of its datagram (RFC 6946)
	}
	one.Key, one.Origin, one.Port = rec.info.Key, rec.ctx, w.in.port.index
	one.Chunks, one.Tracked = uint16(1+len(f.Rest)), rec.info.Flags&packet.Trackable != 0
	res := w.frags.tracker.Add(one, w.now)
	w.dropHeld()
	switch res.Verdict {
	case frag.Drop:
		w.discard(f, rec, res.Reason)
	case frag.Hold:
		w.holdFrame(res.Handle, f, rec)
	default:
		rec.held = res.Handle
		if res.Flow != nil {
			rec.join(res.Flow, res.Tracked)
		}
	}
}

// checkOrigin keeps what is spoofed out of the tracker, where it would take the
// place of others. What is of the flow's first packet is asked again there.
func (w *worker) checkOrigin(rec *record) drop.Reason {
	switch in := w.in.port; {
	case in.spec.Kind == PortHost:
	case in.spec.Kind != PortUplink:
		if !in.hasAddr(&rec.info.Key.Src) {
			return drop.SpoofedSource
		}
	case rec.popped == 0:
		return checkRouted(w.snap, rec)
	case !w.snap.IsPeer(rec.peer):
		return drop.TunnelUnknownPeer
	}
	return drop.None
}

// join makes a later fragment one of the first one's flow.
func (rec *record) join(flow *packet.Key, tracked bool) {
	rec.info.Key, rec.info.Proto = *flow, flow.Proto
	if !tracked {
		rec.info.Flags &^= packet.Trackable
	}
}

// holdFrame keeps a frame until the first fragment of its datagram comes.
func (w *worker) holdFrame(h frag.Handle, f *frame.Frame, rec *record) {
	rec.live = false
	s := &w.frags.held[h]
	s.frame, s.rec, s.in = *f, *rec, w.in
	if len(f.Rest) > 0 { // the burst's memory, which ends with it
		s.frame.Rest = s.rest[:copy(s.rest[:], f.Rest)]
	}
}

// forwardHeld forwards the frames that have waited for the first fragment, which
// has just been forwarded from the same place in the burst.
func (w *worker) forwardHeld(f *frame.Frame, rec *record) {
	flow, tracked, in := rec.info.Key, rec.info.Flags&packet.Trackable != 0, w.in
	for rec.held != 0 {
		s := &w.frags.held[rec.held]
		next := w.frags.tracker.Release(rec.held)
		*f, *rec, w.in = s.frame, s.rec, s.in
		rec.live, rec.held = true, next
		rec.join(&flow, tracked)
		w.lookupAlone(rec)
		w.forward(f, rec)
	}
	w.in = in
}

// giveUpHeld ends the frames that have waited for a first fragment whose handling
// panicked.
func (w *worker) giveUpHeld(rec *record) {
	for rec.held != 0 {
		h := rec.held
		rec.held = w.frags.tracker.Release(h)
		w.endHeld(h, drop.Bug)
	}
}

// dropHeld ends the frames that are no longer to wait.
func (w *worker) dropHeld() {
	for {
		h, r := w.frags.tracker.Dropped()
		if h == 0 {
			return
		}
		w.endHeld(h, r)
	}
}

// endHeld frees a frame that waited, and counts it where it came in.
func (w *worker) endHeld(h frag.Handle, r drop.Reason) {
	s := &w.frags.held[h]
	w.drop(&s.frame, s.in, r)
}

// chunks is the number of the pool's chunks in frames that wait.
func (fs *fragments) chunks() int { return fs.tracker.Stats().Chunks }

// expireFragments gives up datagrams whose time is over.
func (w *worker) expireFragments() {
	w.frags.tracker.Expire(w.now, expirePerTick)
	w.endHeldNow()
	w.frags.gauges.publish(w.frags.tracker.Stats())
}

// forgetFragments gives up the datagrams that came by a port that goes.
func (w *worker) forgetFragments(port uint16) {
	w.frags.tracker.Forget(port)
	w.endHeldNow()
}

// endHeldNow is dropHeld outside of a burst.
func (w *worker) endHeldNow() {
	w.beginWatch()
	w.dropHeld()
	w.endWatch()
}
