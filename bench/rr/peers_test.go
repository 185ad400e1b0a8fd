package rr_test

import (
	"context"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"culvert/bench/peer"
	"culvert/bench/rr"
	"culvert/bench/testbed"
)

// TestFarEndAnswers pings through every device to the pod beyond the wire, and
// asks it over TCP and UDP.
func TestFarEndAnswers(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-pgo=off", "-o", bin+string(filepath.Separator), "../../cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, d := range []peer.Device{
		peer.Kernel{}, peer.OVS{Mode: "native", CPU: 1}, peer.OVS{Mode: "generic", CPU: 1},
		peer.Culvert{Bin: bin, Mode: "auto", Poll: "adaptive"}, peer.Culvert{Bin: bin, Mode: "native", Poll: "adaptive"},
	} {
		t.Run(d.Name(), func(t *testing.T) {
			i, err := d.Start(t.Context(), peer.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := i.Close(); err != nil {
					t.Error(err)
				}
			}()
			if err := i.Bed.Answer(); err != nil {
				t.Fatal(err)
			}
			for _, size := range []string{"56", "1400"} {
				ping(t, i, size)
			}
			ask(t, i)
		})
	}
}

// reachTime is how long the first answer may take.
const reachTime = 5 * time.Second

// ping sends an echo request from the pod until one is answered.
func ping(t *testing.T, i *peer.Instance, size string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), reachTime)
	defer cancel()
	for {
		out, err := i.Bed.Pod.Run(ctx, exec.Command("ping", "-c1", "-W1", "-s", size, testbed.PeerPod.String()))
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s does not answer within %s: %s\n%s", testbed.PeerPod, reachTime, out, i.Log())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ask measures every kind of request for a moment.
func ask(t *testing.T, i *peer.Instance) {
	t.Helper()
	o := rr.Options{
		Client: i.Bed.Pod, Server: i.Bed.Wire, Addr: netip.AddrPortFrom(testbed.PeerPod, 0), Connections: 2,
		Request: 64, Response: 4000, WarmUp: 20 * time.Millisecond, Duration: 100 * time.Millisecond,
	}
	for name, run := range map[string]func() (rr.Result, error){
		"tcp": func() (rr.Result, error) { return rr.Run(t.Context(), o) },
		"udp": func() (rr.Result, error) {
			u := o
			u.Network, u.Response = "udp", 64
			return rr.Run(t.Context(), u)
		},
		"connect": func() (rr.Result, error) { return rr.Connect(t.Context(), o) },
	} {
		r, err := run()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, i.Log())
			continue
		}
		t.Logf("%s: %.0f a second, lost %d, p50 %.0f, p99 %.0f µs", name, r.PerSecond, r.Lost, r.P50, r.P99)
	}
}
