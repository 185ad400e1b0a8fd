package intake

import (
	"encoding/binary"
	"testing"

	"culvert/dataplane/frame"
)

// A turn ends when nothing is left and somebody waits, or much was received, and when
// as much was received as there is room; those that were refused divide three quarters.
func TestTurns(t *testing.T) {
	var c intakeCounter
	var s share
	s.init(&c, 1600)
	if c.Turn.Number != 1 || c.Turn.Most != 1200 {
		t.Fatalf("at first: %+v", c.Turn)
	}
	for i, step := range []struct {
		refused      uint32
		n            int
		none         bool
		number, most uint32
	}{
		{0, 0, true, 1, 1200},    // nothing
		{0, 99, true, 1, 1200},   // little
		{0, 1, false, 1, 1200},   // more than little, but not all
		{0, 0, true, 2, 1200},    // all
		{2, 0, false, 2, 1200},   // two ports wait, but not for nothing
		{0, 50, true, 3, 600},    // now all is there
		{0, 1599, false, 3, 600}, // as much as there is room, but for one
		{0, 1, false, 4, 1200},
		{1, 0, true, 5, 1200},
		{1000, 0, true, 6, 18},
		{0, 0, true, 6, 18}, // who waited has got his share: nobody waits
	} {
		c.Full += step.refused
		s.look(step.n, step.none)
		if got := c.Turn; got.Number != step.number || got.Most != step.most {
			t.Fatalf("step %d: turn %d with %d, want %d with %d", i, got.Number, got.Most, step.number, step.most)
		}
	}
	s.resize(400)
	if c.Turn.Most != 300 {
		t.Errorf("of 400, a share is %d", c.Turn.Most)
	}
	s.resize(9999)
	if c.Turn.Most != 1200 {
		t.Errorf("of more than there is, a share is %d", c.Turn.Most)
	}
}

// A pod that has filled its share while the worker was away takes nothing from
// another, is told of in its own counter, and has its share again when the worker
// is back.
func TestFloodCostsTheFlooder(t *testing.T) {
	r := newRigOf(t, 1, 8192, true)
	flooder, other := r.addPod(), r.addPod()
	const few, flood = 40, 3 * ringSize
	for range 3 {
		before := r.stats()
		for range flood {
			flooder.send(t, segment(flooder.mac, 1, 1, 100, 0))
		}
		for i := range uint32(few) {
			other.send(t, segment(other.mac, 2, i, 100, 0))
		}
		fromFlooder, fromOther := 0, uint32(0)
		for idle := 0; idle < 3; idle++ {
			for _, got := range r.receive(0) {
				idle = 0
				if got.tag.Port == 100 {
					fromFlooder++
				} else if number := binary.BigEndian.Uint32(got.bytes[38:]); number != fromOther {
					t.Fatalf("the other's frame %d came, want %d", number, fromOther)
				} else {
					fromOther++
				}
			}
		}
		if fromOther != few {
			t.Errorf("of the other's %d frames came %d", few, fromOther)
		}
		s := r.stats()
		refused := int(s.RxShare - before.RxShare)
		if refused == 0 || fromFlooder < flood/5 || fromFlooder+refused != flood || s.RxRingFull+s.RxFillEmpty != 0 {
			t.Errorf("of the flooder's %d frames came %d and %d were refused: %+v", flood, fromFlooder, refused, s)
		}
	}
	var s frame.DeviceStats
	if other.attach.Stats(&s); s.RxShare != 0 {
		t.Errorf("%d of the other's frames are counted as refused", s.RxShare)
	}
	r.node.Do(t, func() {
		if err := flooder.attach.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if flooder.attach.Stats(&s); s.RxShare != r.stats().RxShare || s.RxShare == 0 {
		t.Errorf("after Close: %d refused", s.RxShare)
	}
}

// When all frames of a turn are lost behind the programs, nobody gives anything back:
// the port has a new share all the same.
func TestShareAfterLosses(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	sockets := r.in.coll.Maps[intakeMapSockets]
	if err := sockets.Delete(uint32(0)); err != nil {
		t.Fatal(err)
	}
	for range 2 * ringSize {
		p.send(t, segment(p.mac, 1, 1, 10, 0))
	}
	if s := r.stats(); s.RxFailed != ringSize*3/4 || s.RxShare != 2*ringSize-s.RxFailed {
		t.Errorf("%+v", s)
	}
	if err := sockets.Put(uint32(0), uint32(r.in.Queue(0).FD())); err != nil {
		t.Fatal(err)
	}
	r.expect(0) // the worker looks
	p.send(t, segment(p.mac, 1, 1, 10, 0))
	r.expect(1)
}
