package e2e

import (
	"strings"
	"testing"

	"culvert/internal/lab"
)

// A kernel node with strict reverse path filtering on its VXLAN device takes no
// packet out of the tunnel from a node's own address. Its pods learn the path MTU to
// a Culvert node all the same. A traceroute shows the node's own address where the
// peer is not strict.
func TestErrorsPassAStrictPeer(t *testing.T) {
	for _, peer := range []lab.Kind{lab.Calico, lab.Flannel} {
		t.Run(string(peer), func(t *testing.T) {
			c := up(t, lab.Options{Peer: peer, Config: "mtu: 1400\n"})
			n, k := c.Nodes[0], c.Nodes[1]
			dev := "vxlan.calico"
			if peer == lab.Flannel {
				dev = "flannel.1"
			}
			from, to := k.Pods[0].Netns, n.Pods[0].Addr.String()
			hop := func() string {
				return must(t, from, "traceroute", "-n", "-q", "1", "-w", "1", "-m", "3", to)
			}
			if out := hop(); !strings.Contains(out, " 2  "+n.Addr.String()+" ") {
				t.Errorf("traceroute from a pod of the kernel node:\n%s", out)
			}
			strict := "/proc/sys/net/ipv4/conf/" + dev + "/rp_filter"
			must(t, k.Netns, "sh", "-c", "echo 1 > "+strict)
			if out := hop(); !strings.Contains(out, " 2  *") {
				t.Errorf("the peer is not strict:\n%s", out)
			}
			out, err := netns(from, "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1400", to)
			if err == nil || !strings.Contains(out, "mtu = 1400") {
				t.Errorf("ping of 1428 bytes to a pod with MTU 1400: %v\n%s", err, out)
			}
			transfer(t, from, n.Pods[0].Netns, to, 1, 1<<20)
		})
	}
}
