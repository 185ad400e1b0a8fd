package podlink

import (
	"testing"

	"culvert/internal/ethtool"
)

// Whether a pod's kernel leaves UDP to be cut follows what Tune is told, back and
// forth; a new pod's cuts by itself.
func TestTuneUDP(t *testing.T) {
	p := newPair(t, "10.244.1.2")
	p.create(t)
	check := func(when string, want bool) {
		t.Helper()
		p.pod.Do(t, func() {
			for feature, want := range map[string]bool{udpSegmentation: want, "tx-sctp-segmentation": false, "tx-tcp-segmentation": true} {
				if on, err := ethtool.Feature("eth0", feature); err != nil || on != want {
					t.Errorf("%s: %s is on: %t, want %t (%v)", when, feature, on, want, err)
				}
			}
		})
	}
	check("made", false)
	for _, udp := range []bool{true, true, false, true} {
		p.node.Do(t, func() {
			if err := Tune(p.spec.Ref, 65536, udp); err != nil {
				t.Fatal(err)
			}
		})
		check("tuned", udp)
	}
}
