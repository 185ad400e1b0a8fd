package dataplane

import (
	"testing"
	"time"
)

// An adaptive worker looks for longer when frames come soon after it went to sleep, and
// again for less long when they do not.
func TestSpinFollowsWhatComes(t *testing.T) {
	var p poller
	if err := p.open(PollAdaptive); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	slept := func(quiet time.Duration) time.Duration {
		p.idleAt = time.Now().Add(-quiet)
		p.adapt()
		return p.spin
	}
	if got := slept(10 * time.Millisecond); got != spinTime {
		t.Errorf("looks for %s after a long silence, want %s", got, spinTime)
	}
	if got := slept(0); got != longSpin {
		t.Errorf("looks for %s after a short one, want %s", got, longSpin)
	}
	if got := slept(10 * time.Millisecond); got != longSpin/2 {
		t.Errorf("looks for %s after a long one, want %s", got, longSpin/2)
	}
	for range 5 {
		slept(time.Second)
	}
	if p.spin != spinTime {
		t.Errorf("looks for %s at least, want %s", p.spin, spinTime)
	}
	for mode, want := range map[Poll]time.Duration{PollInterrupt: 0, PollBusy: 1<<63 - 1} {
		var p poller
		if err := p.open(mode); err != nil {
			t.Fatal(err)
		}
		defer p.close()
		if p.adapt(); p.spin != want {
			t.Errorf("%s: looks for %s", mode, p.spin)
		}
	}
}
