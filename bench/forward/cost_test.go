package forward

import (
	"testing"

	"culvert/bench/load"
)

// The generator alone costs less than any device, and something.
func TestCostOfTheGenerator(t *testing.T) {
	for _, dir := range []Direction{Encap, Decap} {
		each, err := Cost(stopped, shortly, Load{Direction: dir, Sizes: load.Fixed(64), Flows: 16})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %s a frame", dir, each)
		if each < 50 || each > 50_000 {
			t.Errorf("%s: a frame costs %s to generate", dir, each)
		}
	}
	m := Measurement{Seconds: 2, CoresBusy: 1, Packets: 1000, Offered: 2000}
	if got := m.Nanos(1000); got != 2e9/1000-2000 {
		t.Errorf("%g ns a packet", got)
	}
	if got := m.Nanos(1e9); got != 0 {
		t.Errorf("%g ns a packet", got)
	}
}
