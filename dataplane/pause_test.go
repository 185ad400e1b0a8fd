package dataplane

import (
	"testing"

	"culvert/dataplane/frame"
)

// silent is a device that never has a frame.
type silent struct {
	frame.Device
	asked int
}

func (s *silent) Recv(*frame.Burst) int { s.asked++; return 0 }

// A device that costs a system call to ask is asked less often while it has nothing,
// and at once when the worker has slept.
func TestSilentDeviceIsAskedSeldom(t *testing.T) {
	tap, ring := &silent{}, &silent{}
	w := &worker{rx: []*portQueue{{dev: tap, limits: frame.Limits{Asks: true}}, {dev: ring}}}
	round := func() {
		for _, q := range w.rx {
			w.handle(q)
		}
	}
	for range 39 { // asked in rounds 1, 3, 7, 15, 23, 31, 39
		round()
	}
	if tap.asked != 7 || ring.asked != 39 {
		t.Errorf("asked %d and %d times in 39 rounds, want 7 and 39", tap.asked, ring.asked)
	}
	for want := 8; want < 11; want++ {
		w.wakeAll()
		if round(); tap.asked != want {
			t.Errorf("asked %d times after a sleep, want %d", tap.asked, want)
		}
	}
	q := w.rx[0]
	w.wakeAll()
	round()
	for q.rest > 0 {
		round()
	}
	q.found(true) // what it had is handled: it may have more
	before := tap.asked
	if round(); tap.asked != before+1 {
		t.Error("not asked again after it had frames")
	}
}
