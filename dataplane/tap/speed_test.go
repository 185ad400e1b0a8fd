package tap

import (
	"encoding/json"
	"os/exec"
	"testing"
	"time"

	"culvert/internal/testnet"
)

func iperf(t testing.TB, from, to *testnet.NS, addr string, args ...string) (gbit float64, retrans int) {
	var srv *exec.Cmd
	to.Do(t, func() {
		srv = exec.Command("iperf3", "-s", "-1", "-B", addr)
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
	})
	time.Sleep(200 * time.Millisecond)
	from.Do(t, func() {
		out, err := exec.Command("iperf3", append([]string{"-c", addr, "-t", "4", "-J"}, args...)...).Output()
		if err != nil {
			t.Fatal(err, string(out))
		}
		var r struct {
			End struct {
				SumReceived struct {
					BPS float64 `json:"bits_per_second"`
				} `json:"sum_received"`
				SumSent struct {
					Retransmits int
				} `json:"sum_sent"`
			}
		}
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatal(err)
		}
		gbit, retrans = r.End.SumReceived.BPS/1e9, r.End.SumSent.Retransmits
	})
	srv.Wait()
	return
}

func TestSpeed(t *testing.T) {
	r := newRig(t, false)
	r.addPod(1450, "10.0.0.1/24")
	r.addPod(1450, "10.0.0.2/24")
	r.run()
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Veth(t, a, "eth0", b, "eth0", testnet.MTU(1450))
	a.AddAddr(t, "eth0", "10.0.0.1/24")
	b.AddAddr(t, "eth0", "10.0.0.2/24")
	for range 3 {
		for _, p := range []string{"1", "8", "64"} {
			g, n := iperf(t, r.pods[0].ns, r.pods[1].ns, "10.0.0.2", "-P", p)
			gk, nk := iperf(t, a, b, "10.0.0.2", "-P", p)
			t.Logf("-P %s: tap %.1f Gbit/s (%d retransmits), veth %.1f (%d); drops %d", p, g, n, gk, nk, r.pods[0].q.drops.read())
		}
	}
}
