package bench

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"culvert/bench/peer"
	"culvert/dataplane/xsk"
)

// workerCPU is where a device's polling thread runs: not with the generator.
func workerCPU() int { return 1 }

// quick is a run just long enough to see that frames come through right.
func quick(t *testing.T, d peer.Device, dir Direction) {
	t.Helper()
	o := Default(d)
	o.Direction, o.Rounds, o.Duration, o.WarmUp = dir, 1, 200*time.Millisecond, 0
	r, err := Run(stopped, o)
	if err != nil {
		t.Fatal(err)
	}
	m := r.Rounds[0]
	if m.Packets == 0 || m.Packets > m.Offered+m.Offered/4 {
		t.Errorf("%d packets delivered of %d offered", m.Packets, m.Offered)
	}
	t.Logf("%.3f Mpps delivered of %.3f offered; %d others", m.Mpps, float64(m.Offered)/m.Seconds/1e6, m.Other)
}

// TestPeersForward checks that every peer does its work in both directions:
// Run looks into the frames that arrive.
func TestPeersForward(t *testing.T) {
	for _, d := range []peer.Device{
		peer.Kernel{}, peer.Kernel{RPS: true},
		peer.OVS{Mode: "native", CPU: workerCPU()}, peer.OVS{Mode: "generic", CPU: workerCPU()},
		peer.Bare{Pod: xsk.ModeNative, Uplink: xsk.ModeGeneric, CPU: workerCPU()},
		peer.Bare{Pod: xsk.ModeGeneric, Uplink: xsk.ModeNative, CPU: workerCPU()},
	} {
		for _, dir := range []Direction{Encap, Decap} {
			t.Run(d.Name()+"/"+string(dir), func(t *testing.T) { quick(t, d, dir) })
		}
	}
}

// TestCulvertForwards checks the same of Culvert's own programs, built anew.
func TestCulvertForwards(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-pgo=off", "-o", dir+string(filepath.Separator), "../cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, mode := range []string{"native", "generic"} {
		for _, direction := range []Direction{Encap, Decap} {
			d := peer.Culvert{Bin: dir, Mode: mode, Poll: "adaptive"}
			t.Run(mode+"/"+string(direction), func(t *testing.T) { quick(t, d, direction) })
		}
	}
}
