package dataplane

import (
	"testing"
	"time"

	"culvert/dataplane/frame"
)

// silent is a device that never has a frame.
type silent struct {
	frame.Device
	asked int
}

func (s *silent) Recv(*frame.Burst) int { s.asked++; return 0 }

// A device that costs a system call to ask is not asked in every round while it has
// nothing, and at once when the worker has slept.
func TestSilentDeviceIsAskedSeldom(t *testing.T) {
	tap, ring := &silent{}, &silent{}
	w := &worker{rx: []*portQueue{{dev: tap, limits: frame.Limits{Asks: true}}, {dev: ring}}}
	round := func(at time.Duration) {
		w.round = at
		for _, q := range w.rx {
			w.handle(q)
		}
	}
	for n := range 100 { // of a microsecond each
		round(time.Second + time.Duration(n)*time.Microsecond)
	}
	if tap.asked != 20 || ring.asked != 100 {
		t.Errorf("asked %d and %d times in 100 µs, want 20 and 100", tap.asked, ring.asked)
	}
	round(time.Second + 100*time.Microsecond)
	for want := 22; want < 25; want++ {
		w.askAll()
		if round(time.Second + 101*time.Microsecond); tap.asked != want {
			t.Errorf("asked %d times after a sleep, want %d", tap.asked, want)
		}
	}
	for n := range 10 { // as long as rounds of much work take
		round(2*time.Second + time.Duration(n)*100*time.Microsecond)
	}
	if tap.asked != 34 {
		t.Errorf("asked %d times in long rounds, want 34", tap.asked)
	}
}
