package e2e

import (
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// A pod that floods as fast as it can costs itself only: another one's pings through
// the same worker are all answered, and each of the flooder's frames was taken, or is
// counted where it was lost.
func TestFloodCostsTheFlooder(t *testing.T) {
	c := up(t, lab.Options{Nodes: 1, Pods: 4, Config: "workers: 1\n"})
	n := c.Nodes[0]
	flooder, sink, a, b := n.Pods[0], n.Pods[1], n.Pods[2], n.Pods[3]
	must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "2", b.Addr.String())
	port := podNamed(t, n, flooder.Name).Port
	// What the node's end of the veth has received, the program has seen.
	arrived := func() uint64 {
		out := must(t, n.Netns, "cat", "/sys/class/net/"+port+"/statistics/rx_packets")
		v, err := strconv.ParseUint(strings.TrimSpace(out), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	counted := func() (all, share uint64) {
		all = portNamed(t, n, port).Rx.Packets
		for _, d := range culvertJSON[[]api.Drop](t, n, "drops") {
			switch {
			case d.Port == port && d.Reason == "rx_share":
				all, share = all+d.Packets, d.Packets
			case d.Port == "intake":
				all += d.Packets
			}
		}
		return all, share
	}
	arrivedBefore := arrived()
	countedBefore, _ := counted()
	pings := startPing(a.Netns, b.Addr.String())
	floodUDP(t, flooder, sink, 2*time.Second)
	sent, received := pings.result(t)
	spare := 1 + sent/100 // the last one is on its way when ping ends
	if raceBuild {        // the worker and the flood's own senders leave the kernel's backlog no room
		spare = sent / 4
	}
	if sent < 20 || sent-received > spare {
		t.Errorf("%d of %d pings were answered beside a flood", received, sent)
	}
	time.Sleep(200 * time.Millisecond) // the worker takes what is left
	flood := arrived() - arrivedBefore
	taken, share := counted()
	taken -= countedBefore
	t.Logf("%d frames in 2 s, %d over the share; %d of %d pings answered; drops %+v", flood, share, received, sent,
		culvertJSON[[]api.Drop](t, n, "drops"))
	own := uint64(sent) * 2 // of the pings, to and fro, which may be lost in the common part
	if flood < 20000 || taken+own < flood || taken > flood+own {
		t.Errorf("of the flood's %d frames %d were taken or are counted as lost", flood, taken)
	}
	if share == 0 {
		t.Error("the flood was not more than the worker takes: nothing was tested")
	}
	transfer(t, flooder.Netns, b.Netns, b.Addr.String(), 1, 1<<20) // the flooder has its share again
}

// floodUDP sends small datagrams from one pod to another with several threads.
func floodUDP(t *testing.T, from, to *lab.Pod, d time.Duration) {
	t.Helper()
	var senders sync.WaitGroup
	for range 3 {
		var conn *net.UDPConn
		err := inside(from.Netns, func() (err error) {
			conn, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: to.Addr.AsSlice(), Port: 9})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		senders.Go(func() {
			payload := make([]byte, 18)
			for end := time.Now().Add(d); time.Now().Before(end); {
				for range 100 {
					_, _ = conn.Write(payload) // port unreachable, and no room: the flood goes on
				}
			}
		})
	}
	senders.Wait()
}
