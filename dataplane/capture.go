package dataplane

import (
	"fmt"
	"slices"
	"time"

	"culvert/dataplane/capture"
	"culvert/dataplane/frame"
	"culvert/internal/drop"
)

// Captures: copies of frames for who wants to see them, taken as they are received,
// handed to a device, and dropped. A worker without one pays a comparison for each
// frame; its taps change between two bursts, so that nothing is to be locked.

// MaxCaptures is how many captures may run at once.
const MaxCaptures = 4

// captureRing is the size of a capture's ring in each worker, in bytes.
const captureRing = 4 << 20

// watch notes a frame for the captures that want it.
func (w *worker) watch(f *frame.Frame, q *portQueue, dir capture.Direction, r drop.Reason) {
	first := w.pool.Bytes(f.Addr, f.Len)
	rec := capture.Record{
		Time: w.stamp, Length: f.Total, Port: q.port.index, Direction: dir, Reason: r,
		Flags: f.Flags, CsumStart: f.CsumStart, CsumOffset: f.CsumOffset,
	}
	if f.SegSize != 0 {
		rec.SegSize, rec.HeaderLen, rec.OuterL4 = f.SegSize, f.HeaderLen, f.OuterL4
	}
	for _, t := range w.taps {
		if !t.Wants(&rec, first) {
			continue
		}
		room := t.Ring.Reserve(&rec, min(int(f.Total), t.Spec.Snaplen))
		room = room[copy(room, first):]
		for i := 0; i < len(f.Rest) && len(room) > 0; i++ {
			room = room[copy(room, w.pool.Bytes(f.Rest[i].Addr, f.Rest[i].Len)):]
		}
	}
}

// beginWatch takes the time that the captures give the frames from here on.
func (w *worker) beginWatch() {
	if len(w.taps) != 0 {
		w.stamp = time.Now().UnixNano()
	}
}

// endWatch shows the captures' readers what was noted.
func (w *worker) endWatch() {
	for _, t := range w.taps {
		t.Ring.Publish()
	}
}

// watchTx notes the frames that a device is about to get.
func (w *worker) watchTx(q *portQueue, staged []frame.Frame) {
	for i := range staged {
		w.watch(&staged[i], q, capture.Tx, drop.None)
	}
}

// drop ends a frame: noted, freed, and counted at a port.
func (w *worker) drop(f *frame.Frame, q *portQueue, r drop.Reason) {
	if len(w.taps) != 0 {
		w.watch(f, q, capture.Drop, r)
	}
	w.pool.FreeFrame(f)
	bump(&q.counters.drops[r], 1)
}

// CaptureSpec says what a capture is of.
type CaptureSpec struct {
	Ports      []string // by name; none is all
	Directions capture.Directions
	Reason     drop.Reason // of drops; None is any
	Match      capture.Match
	Snaplen    int // bytes of a frame, 1 to frame.MaxBytes
}

// Capture is a running capture. One goroutine uses it.
type Capture struct {
	e     *Engine
	taps  []*capture.Tap // by worker
	vxlan []uint16
	names map[uint16]PortName
	head  []capture.Record // of each ring, while Read runs
	has   []bool
}

// PortName is what people know a port by.
type PortName struct {
	Name string
	Kind PortKind
}

// NoPortError says that a capture is to be of a port that there is not.
type NoPortError struct{ Name string }

// Error names the port.
func (e *NoPortError) Error() string {
	return fmt.Sprintf("there is no port %s: 'culvert port' lists them", e.Name)
}

// StartCapture begins a capture of what the workers do from their next burst on. It
// must be closed. Ports that are added later under a name that is asked for are not
// part of it. An error is a NoPortError, or says that there are too many captures.
func (e *Engine) StartCapture(spec *CaptureSpec) (*Capture, error) {
	c := &Capture{e: e, names: map[uint16]PortName{}}
	s := &capture.Spec{
		Directions: spec.Directions, Reason: spec.Reason, Filter: capture.NewFilter(&spec.Match),
		Snaplen: min(max(spec.Snaplen, 1), frame.MaxBytes),
	}
	for i := range e.Tables().Node().VTEPs {
		if port := e.Tables().Node().VTEPs[i].Port; !slices.Contains(s.VXLAN, port) {
			s.VXLAN = append(s.VXLAN, port)
		}
	}
	c.vxlan = s.VXLAN
	for range e.workers {
		ring, err := capture.NewRing(captureRing)
		if err != nil {
			return nil, err
		}
		c.taps = append(c.taps, &capture.Tap{Spec: s, Ring: ring})
	}
	c.head, c.has = make([]capture.Record, len(c.taps)), make([]bool, len(c.taps))
	e.mu.Lock()
	defer e.mu.Unlock()
	var err error
	if s.Ports, err = e.portSet(spec.Ports); err != nil {
		return nil, err
	}
	if len(e.captures) == MaxCaptures {
		return nil, fmt.Errorf("%d captures are running, which is the most: end one first", MaxCaptures)
	}
	e.captures = append(e.captures, c)
	c.learnNames()
	for i, w := range e.workers {
		w.do(func() { w.taps = append(w.taps, c.taps[i]) })
	}
	return c, nil
}

// portSet are the indices of ports, nil for no names. e.mu is held.
func (e *Engine) portSet(names []string) (*capture.Ports, error) {
	if len(names) == 0 {
		return nil, nil
	}
	var set capture.Ports
	for _, name := range names {
		found := false
		for _, p := range e.ports {
			if p != nil && p.ready && p.spec.Name == name {
				set.Add(p.index)
				found = true
			}
		}
		if !found {
			return nil, &NoPortError{name}
		}
	}
	return &set, nil
}

// learnNames remembers the names of the ports that there are, for frames of ports
// that are gone when they are read. The engine's mutex is held.
func (c *Capture) learnNames() {
	for _, p := range c.e.ports {
		if p != nil {
			c.names[p.index] = PortName{p.spec.Name, p.spec.Kind}
		}
	}
}

// PortName names the port of a record; of one that came and went between two reads it
// is empty.
func (c *Capture) PortName(index uint16) PortName {
	name, ok := c.names[index]
	if !ok {
		c.e.mu.Lock()
		c.learnNames()
		c.e.mu.Unlock()
		name = c.names[index]
	}
	return name
}

// VXLAN are the UDP ports that the capture takes for tunnels.
func (c *Capture) VXLAN() []uint16 { return c.vxlan }

// Read hands each the records that are there, in the order of their time, until it
// returns false or none is left that is older than before, in ns since 1970: a worker
// may still have older ones than another has shown. Records are valid during the call.
func (c *Capture) Read(before int64, each func(*capture.Record) bool) {
	heads := make([]uint64, len(c.taps))
	for i, t := range c.taps {
		heads[i] = t.Ring.Head()
		c.has[i] = t.Ring.Peek(&c.head[i], heads[i])
	}
	for {
		best := -1
		for i := range c.taps {
			if c.has[i] && (best < 0 || c.head[i].Time < c.head[best].Time) {
				best = i
			}
		}
		if best < 0 || c.head[best].Time >= before {
			return
		}
		more := each(&c.head[best])
		ring := c.taps[best].Ring
		ring.Pop()
		c.has[best] = ring.Peek(&c.head[best], heads[best])
		if !more {
			return
		}
	}
}

// Missed is the number of frames that were not kept because nobody read in time.
func (c *Capture) Missed() (n uint64) {
	for _, t := range c.taps {
		n += t.Ring.Missed()
	}
	return n
}

// Close ends the capture. When it returns no worker knows it any more.
func (c *Capture) Close() {
	e := c.e
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.Index(e.captures, c)
	if i < 0 {
		return
	}
	e.captures = slices.Delete(e.captures, i, i+1)
	for i, w := range e.workers {
		w.do(func() { w.taps = slices.DeleteFunc(w.taps, func(t *capture.Tap) bool { return t == c.taps[i] }) })
	}
	e.captureMissed += c.Missed()
}

// CaptureStats is the number of captures that run, and that of the frames that they
// and those before them missed.
func (e *Engine) CaptureStats() (running int, missed uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	missed = e.captureMissed
	for _, c := range e.captures {
		missed += c.Missed()
	}
	return len(e.captures), missed
}
