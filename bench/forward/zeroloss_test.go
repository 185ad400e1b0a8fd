package forward

import (
	"testing"
	"time"

	"culvert/bench/load"
	"culvert/bench/peer"
)

// The kernel forwards something without loss, and not much more than it forwards at all.
func TestZeroLoss(t *testing.T) {
	i, err := peer.Kernel{}.Start(stopped, peer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer closeInstance(t, i)
	timing := Timing{Duration: 200 * time.Millisecond}
	l := Load{Direction: Encap, Sizes: load.Fixed(64), Flows: 16}
	most, err := Measure(stopped, timing, l, i)
	if err != nil {
		t.Fatal(err)
	}
	rate, err := ZeroLoss(stopped, timing, l, i)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f packets a second", rate)
	if rate < 1000 || rate > 3e6*most.Mpps() { // thrice: the machine may have been busy with something else before
		t.Errorf("%.0f packets a second without loss, %.3f million at most", rate, most.Mpps())
	}
	l.Direction = Both
	if _, err := ZeroLoss(stopped, timing, l, i); err == nil {
		t.Error("both directions at once: accepted")
	}
}
