package e2e

import (
	"fmt"
	"testing"

	"culvert/internal/lab"
)

// Everything that an underlay of 9000 bytes carries, small frames of several chunks
// among it: pods have an MTU of 8950.
func TestJumboUnderlay(t *testing.T) {
	for _, tt := range []struct {
		peer   lab.Kind
		config string
	}{
		{lab.Culvert, ""},
		{lab.Calico, ""},
		{lab.Flannel, "xdp: {mode: generic}\n"},
		{lab.Culvert, "xdp: {mode: generic}\n"},
		{lab.Culvert, "xdp: {mode: native}\n"},
		{lab.Calico, "xdp: {mode: native}\n"},
		{lab.Culvert, "xdp: {frameSize: 2048}\n"},
	} {
		t.Run(fmt.Sprintf("%s %s", tt.peer, tt.config), func(t *testing.T) {
			c := up(t, lab.Options{Peer: tt.peer, MTU: 9000, Config: tt.config, Interfaces: []string{"veth", "tap"}})
			n := c.Nodes[0]
			pairs := []way{{n.Pods[0], n.Pods[1]}, {n.Pods[1], n.Pods[0]}}
			for _, p := range n.Pods {
				pairs = append(pairs, way{p, c.Nodes[1].Pods[0]}, way{c.Nodes[1].Pods[0], p})
			}
			for _, w := range pairs {
				t.Run(w.String(), func(t *testing.T) {
					from, to, addr := w.from.Netns, w.to.Netns, w.to.Addr.String()
					must(t, from, "ping", "-n", "-c", "3", "-i", "0.05", "-W", "2", "-M", "do", "-s", "8922", addr)
					echoUDP(t, from, to, addr, 1, 1422, 3800, 4000, 8900, 8922, 8923, 30000, 65000)
					transfer(t, from, to, addr, 1, 8<<20)
					transfer(t, from, to, addr, 8, 1<<20)
				})
			}
		})
	}
}
