package xskgen

import (
	"testing"
	"time"
)

// TestPace runs the pace on a clock of its own: every sleep takes as long as it
// says, or longer.
func TestPace(t *testing.T) {
	for _, rate := range []float64{1, 1000, 123_456, 1e6} {
		p := newPace(rate)
		now, sent, wakeups := time.Duration(0), 0, 0
		for now < 2*time.Second {
			n, sleep := p.due(now)
			sent += n
			if n == 0 {
				now += sleep + 50*time.Microsecond
				wakeups++
			}
		}
		if want := 2 * rate; float64(sent) > want+1 || float64(sent) < want-burst-100e-6*rate-1 {
			t.Errorf("%g a second: %d frames in two seconds", rate, sent)
		}
		if float64(wakeups) > 2*max(10_000, rate/burst) {
			t.Errorf("%g a second: woke up %d times", rate, wakeups)
		}
	}
	p := newPace(1e6)
	sent := 0
	for {
		n, _ := p.due(time.Second)
		if n == 0 {
			break
		}
		sent += n
	}
	if sent > 1000 || sent < 1000-burst {
		t.Errorf("%d frames at once after a second's delay, want those of a millisecond", sent)
	}
}

func TestParseRing(t *testing.T) {
	const line = "7f2c1a000000-7f2c1a002000 rw-s 80000000 00:08 4711                       socket:[4711]"
	r, ok := parseRing(line)
	if !ok || r != (ring{0x7f2c1a000000, 0x7f2c1a002000, 4711}) {
		t.Errorf("%+v, %t", r, ok)
	}
	for _, other := range []string{
		"", line + " (deleted)", "7f-7e rw-s 0 00:08 4711 socket:[4711]", "x-y rw-s 0 00:08 4711 socket:[4711]",
		"7e-7f rw-s 0 00:08 4711 /a/file", "7e-7f rw-s 0 00:08 4711 socket:[]", "7e-7f rw-s 0 00:08 4711 socket:[1", "7e-7f rw-s 0 00:08 4711",
	} {
		if r, ok := parseRing(other); ok {
			t.Errorf("%q is a ring, %+v", other, r)
		}
	}
}
