package dataplane

import (
	"errors"
	"fmt"
	"math/bits"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"culvert/dataplane/capture"
	"culvert/dataplane/flow"
	"culvert/dataplane/frame"
	"culvert/encap"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// worker is one thread with its own memory and its own queue of every port.
// Only the fields below mail are touched by other goroutines.
type worker struct {
	id    int
	eng   *Engine
	pool  *frame.Pool
	flows *flow.Table
	poll  poller

	active []*portQueue         // queues, in turn
	rx     []*portQueue         // of them, those that receive
	late   []*portQueue         // queues that only send, with frames that the kernel has yet to take
	ports  [maxPorts]*portQueue // egress, by port index
	staged []uint16             // indices of ports with frames in tx

	// The burst in hand: which queue it came from, under which tables, and how
	// far the stages have come, so that a panic costs one frame.
	from       *portQueue
	shared     bool         // from brings the frames of many ports
	in         *portQueue   // the ingress port of the frame in hand
	received   []*portQueue // ports whose frames came by an intake
	snap       *fib.Snapshot
	taps       []*capture.Tap // captures that run, each one's part in this worker
	stamp      int64          // the time of what is noted for them
	burst      frame.Burst
	recs       [frame.BurstSize]record
	hashes     [frame.BurstSize]uint64 // of the records' keys
	probes     [frame.BurstSize]flow.Probe
	stage      stage
	cur        int
	budget     int         // exceptions still answered in this burst
	ident      uint16      // of the next outer IPv4 header
	inner      encap.Inner // of the packet being rewritten
	sum        packet.Summer
	segmenter  packet.Segmenter
	fragmenter packet.Fragmenter
	groups     groups
	frags      fragments
	injected   []injected   // packets that came by mail
	heat       uint32       // what frame.Pool.Warm returned
	arena      []frame.Desc // continuation chunks of staged frames that were cut or merged

	now       uint32 // seconds since the engine started, as the flow table counts
	started   time.Time
	round     time.Duration // when the last one ended
	lastTick  time.Duration
	lastSweep time.Duration
	behind    bool // there are flows left that are to be looked at
	busySince time.Duration
	busy      time.Duration // since windowAt
	windowAt  time.Duration
	panicAt   time.Time // when a panic was last logged
	panics    int       // since then

	mail struct {
		sync.Mutex
		pending atomic.Bool
		jobs    []func()
		packets []injected // by Engine.Inject
		done    bool       // the worker has ended: jobs run on the caller
		running bool
	}
	gauges gauges
}

// gauges are written by the worker and read by anyone.
type gauges struct {
	busyPermille atomic.Uint32
	freeFrames   atomic.Uint32
	sleeps       atomic.Uint64
	whole        atomic.Uint64 // big frames that left as they came
	cut          atomic.Uint64 // ... that were cut
	merged       atomic.Uint64 // ... that segments were merged to
	beat         atomic.Int64  // time of the last tick since the worker was made, in ns
	burstFrames  atomic.Uint64
	bursts       [burstBuckets]atomic.Uint64
}

// reserveShare is the part of a worker's memory, one in so many, that ports do not
// get to receive into.
const reserveShare = 8

func newWorker(e *Engine, id int) (*worker, error) {
	pool, err := frame.NewPool(e.cfg.Chunks, e.cfg.FrameSize, e.cfg.Checked)
	if err != nil {
		return nil, err
	}
	w := &worker{id: id, eng: e, pool: pool, flows: e.flows, ident: 1, started: time.Now()}
	w.arena = make([]frame.Desc, 0, arenaSize)
	if err := w.frags.init(pool); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	pool.SetReserve(pool.Chunks() / reserveShare)
	if err := w.poll.open(e.cfg.Poll); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	w.gauges.freeFrames.Store(uint32(pool.FreeChunks()))
	return w, nil
}

// close releases what newWorker made. The worker has ended.
func (w *worker) close() error {
	return errors.Join(w.poll.close(), w.pool.Close())
}

// run is the worker's life: bursts from every port in turn, jobs and
// housekeeping between them, and sleep when there is nothing to do.
func (w *worker) run() {
	w.mail.Lock()
	w.mail.running = true
	w.mail.Unlock()
	for !w.takeMail() {
		w.flows.Quiesce(w.id)
		got := w.handleInjected()
		for _, q := range w.rx {
			got += w.handle(q)
		}
		if len(w.late) > 0 {
			w.sendLate()
		}
		w.tick(got > 0)
		if got > 0 {
			w.poll.busy()
			continue
		}
		if w.sending() || w.behind {
			continue
		}
		w.flows.Offline(w.id)
		if w.poll.idle(&w.mail.pending) {
			bump(&w.gauges.sleeps, 1)
			w.askAll()
			w.busySince = time.Since(w.started) // sleep is no work
		}
	}
	w.flows.Offline(w.id)
}

// sending reports whether a port has frames that the kernel has yet to take: then
// the worker stays awake to offer them again.
func (w *worker) sending() bool {
	if len(w.late) > 0 {
		return true
	}
	for _, q := range w.rx {
		if q.dev.Sending() {
			return true
		}
	}
	return false
}

// sendLate makes the devices of queues that only send try again, and forgets those
// that have nothing left.
func (w *worker) sendLate() {
	late := w.late[:0]
	for _, q := range w.late {
		w.complete(q)
		if q.dev.Sending() {
			late = append(late, q)
		} else {
			q.late = false
		}
	}
	clear(w.late[len(late):])
	w.late = late
}

// complete lets the device of a queue that only sends take completed frames back.
// Otherwise it does so with the next Send.
func (w *worker) complete(q *portQueue) {
	q.dev.Recv(&w.burst) // which stays as it is
}

// tickEvery is how often a worker does its housekeeping.
const tickEvery = 100 * time.Millisecond

// A tick looks at sweepPerTick flow entries at most. When more are due, which sixteen
// million connections or eighty thousand new ones a second bring about, the worker looks
// at sweepMore of them at once if it has nothing else to do, and after sweepPause if it has:
// a twentieth of its time at most.
const (
	sweepPerTick = 4096
	sweepMore    = 512
	sweepPause   = time.Millisecond
)

// sweep expires flows, having looked at so many entries at most.
func (w *worker) sweep(now time.Duration, most int) {
	_, w.behind = w.flows.SweepSome(w.now, most)
	w.lastSweep = now
}

// busyWindow is what the busy ratio speaks of.
const busyWindow = time.Second

// tick keeps the clock, the busy ratio, and the expiry of flows.
func (w *worker) tick(busy bool) {
	now := time.Since(w.started)
	w.round = now
	if busy {
		w.busy += now - w.busySince
	}
	w.busySince = now
	if w.behind && (!busy || now-w.lastSweep >= sweepPause) {
		w.sweep(now, sweepMore)
	}
	if now-w.lastTick < tickEvery {
		return
	}
	w.lastTick = now
	w.gauges.beat.Store(int64(now))
	w.gauges.freeFrames.Store(uint32(w.pool.FreeChunks()))
	if window := now - w.windowAt; window >= busyWindow {
		w.gauges.busyPermille.Store(uint32(1000 * w.busy / window))
		w.busy, w.windowAt = 0, now
	}
	for _, q := range w.active {
		if q.limits.TxOnly {
			w.complete(q)
		}
	}
	w.now = w.eng.Now()
	w.expireFragments()
	if w.id == 0 {
		w.sweep(now, sweepPerTick)
	}
}

// handle receives one burst from q and takes it through the stages. It returns
// the number of frames received. Afterwards the worker owns none of them.
func (w *worker) handle(q *portQueue) int {
	if q.askAt > w.round {
		return 0
	}
	w.burst.Reset()
	n := q.dev.Recv(&w.burst)
	if n == 0 {
		if q.limits.Asks {
			q.askAt = w.round + askPause
		}
		return 0
	}
	bump(&w.gauges.bursts[bits.Len(uint(n-1))], 1)
	bump(&w.gauges.burstFrames, uint64(n))
	w.process(q)
	return n
}

// askPause is how long a device that has had nothing is left alone where asking it is a
// system call. A worker that has little to do makes a round in a fraction of a
// microsecond, and a call takes one.
const askPause = 5 * time.Microsecond

// askAll makes the worker ask every device: one of them has ended its sleep.
func (w *worker) askAll() {
	for _, q := range w.rx {
		q.askAt = 0
	}
}

// process takes the burst in hand, which came from q, through the stages.
func (w *worker) process(q *portQueue) {
	w.from, w.in, w.shared = q, q, q.port.spec.Kind == PortIntake
	w.snap, w.budget = w.eng.tables.Load(), exceptionBudget
	w.stage, w.cur = stageIngress, 0
	w.beginWatch()
	for !w.stages() {
	}
	w.flush()
	w.endWatch()
	q.publish()
	for _, in := range w.received {
		in.publish()
	}
	w.received = w.received[:0]
}

// stage is a step of the pipeline that all frames of a burst take together.
type stage uint8

const (
	stageIngress stage = iota
	stageLookup
	stageForward
)

// stages runs the burst through the stages from where the last call left off.
// It reports false when a frame's handling panicked: that frame is gone, and
// the next call goes on behind it.
func (w *worker) stages() (done bool) {
	defer w.contain()
	frames, recs := w.burst.Frames[:w.burst.N], w.recs[:w.burst.N]
	if w.stage == stageIngress {
		if w.cur == 0 {
			w.fetch(frames)
		}
		for i := w.cur; i < len(frames); i++ {
			w.cur = i
			w.ingress(&frames[i], &recs[i])
		}
		w.stage, w.cur = stageLookup, 0
	}
	if w.stage == stageLookup {
		w.lookup(recs)
		w.stage, w.cur = stageForward, 0
	}
	for i := w.cur; i < len(frames); i++ {
		w.cur = i
		if recs[i].live {
			if w.shared {
				w.in = recs[i].in
			}
			w.forward(&frames[i], &recs[i])
			if recs[i].held != 0 {
				w.forwardHeld(&frames[i], &recs[i])
			}
		}
	}
	w.cur = len(frames) // of none: what panics from here costs a frame's segments
	w.closeAllGroups()
	return true
}

// fetch makes the processor get the first bytes of all frames at once. The kernel has
// written them on whichever core received them, and each would be waited for alone:
// a twentieth of the worker's time.
func (w *worker) fetch(frames []frame.Frame) {
	heat := uint32(0)
	for i := range frames {
		heat ^= w.pool.Warm(frames[i].Addr)
	}
	w.heat = heat
}

// contain turns a panic into the loss of one frame, counted as drop.Bug and
// reported, once a second at most, with the frame's first bytes.
func (w *worker) contain() {
	cause := recover()
	if cause == nil {
		return
	}
	last := min(w.cur, w.burst.N-1)
	f, rec := &w.burst.Frames[last], &w.recs[last]
	if w.shared {
		w.in = rec.in
	}
	if w.eng.cfg.Checked {
		panic(fmt.Sprintf("%v\n%s", cause, debug.Stack()))
	}
	if w.panics++; time.Since(w.panicAt) > time.Second {
		w.eng.log.Error("a frame made the dataplane panic; it was dropped", "count", w.panics,
			"port", w.in.port.spec.Name, "cause", fmt.Sprint(cause), "stage", int(w.stage),
			"frame", fmt.Sprintf("%x", w.pool.Bytes(f.Addr, min(f.Len, 256))), "stack", string(debug.Stack()))
		w.panics, w.panicAt = 0, time.Now()
	}
	if rec.live {
		w.discard(f, rec, drop.Bug)
	} else {
		bump(&w.in.counters.drops[drop.Bug], 1)
	}
	w.giveUpHeld(rec)
	w.cur++
}

// discard ends a received frame: freed, and counted at its ingress port.
func (w *worker) discard(f *frame.Frame, rec *record, r drop.Reason) {
	rec.live = false
	w.drop(f, w.in, r)
}
