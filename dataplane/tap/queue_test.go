package tap

import (
	"testing"
	"time"
)

func TestTransfer(t *testing.T) {
	r := newRig(t, true)
	r.addPod(1450, "10.0.0.1/24")
	r.addPod(1450, "10.0.0.2/24")
	r.run()
	const bytes = 512 << 20
	for _, d := range [][2]int{{0, 1}, {1, 0}} {
		took := r.transfer(d[0], d[1], []string{"10.0.0.1", "10.0.0.2"}[d[1]], bytes)
		t.Logf("%d to %d: %.1f Gbit/s; %d frames, %d big, longest %d, lost %d", d[0], d[1],
			float64(bytes)*8/took.Seconds()/1e9, r.frames.Load(), r.big.Load(), r.longest.Load(), r.lost.Load())
	}
	if r.longest.Load() < 60000 {
		t.Errorf("the longest frame has %d bytes: segmentation offload is not used", r.longest.Load())
	}
	_ = time.Now
}
