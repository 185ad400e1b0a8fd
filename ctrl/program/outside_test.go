package program

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"culvert/ctrl/underlay"
	"culvert/fib"
	"culvert/internal/packet"
)

// way is where a snapshot leads an address.
func way(s *fib.Snapshot, to string) string {
	r, adj, ok := s.Lookup(packet.AddrFrom(addr(to)))
	if !ok {
		return "nowhere"
	}
	text := fmt.Sprintf("%s %s", r.Prefix, adj.Kind)
	if adj.Via.IsValid() {
		text += " via " + adj.Via.String()
	}
	if adj.Dev != "" {
		text += " dev " + adj.Dev
	}
	if adj.Outside {
		text += " outside"
	}
	return text + " proto " + r.Protocol
}

func gateway(via string, resolved bool) underlay.NextHop {
	return underlay.NextHop{Dev: "eth0", Ifindex: 7, Via: addr(via), MTU: 1500, Resolved: resolved, Weight: 1,
		SrcMAC: packet.MAC{2, 0, 0, 0, 0, 1}, MAC: packet.MAC{2, 0, 0, 0, 0, 9}}
}

func wantWays(t *testing.T, s *fib.Snapshot, ways map[string]string) {
	t.Helper()
	for to, want := range ways {
		if got := way(s, to); got != want {
			t.Errorf("%s: %s, want %s", to, got, want)
		}
	}
}

// Pods' packets to another node itself go as those to its pods do.
func TestPeersThemselves(t *testing.T) {
	p, _ := newTest(network{addr("192.168.0.2"): resolved("192.168.0.2"), addr("192.168.0.3"): resolved("192.168.0.3")})
	direct := peer("n3", "192.168.0.3", "10.244.3.0/24")
	direct.Encap = "none"
	p.SetDesired(desired(peer("n2", "192.168.0.2", "10.244.2.0/24"), direct))
	wantWays(t, p.Snapshot(), map[string]string{
		"192.168.0.2": "192.168.0.2/32 vxlan via 192.168.0.2 dev eth0 proto node",
		"192.168.0.3": "192.168.0.3/32 direct via 192.168.0.3 dev eth0 proto node",
		"192.168.0.4": "nowhere",
	})
	p.SetDesired(desired())
	wantWays(t, p.Snapshot(), map[string]string{"192.168.0.2": "nowhere"})
}

// What leaves the cluster goes to a gateway that answers, and else to the node's stack.
func TestWaysOutside(t *testing.T) {
	k := &kernel{network{addr("192.168.0.2"): resolved("192.168.0.2")}, []underlay.Route{
		{Dst: prefix("0.0.0.0/0"), Hops: []underlay.NextHop{gateway("192.168.0.254", true)}},
		{Dst: prefix("192.168.0.0/24")},
		{Dst: prefix("192.168.0.1/32"), Own: true},
		{Dst: prefix("172.17.0.1/32"), Own: true}, // of another device
		{Dst: prefix("10.96.0.10/32"), Own: true}, // as kube-proxy has it in its IPVS mode
		{Dst: prefix("10.0.0.0/8"), Hops: []underlay.NextHop{gateway("192.168.0.253", false)}},
		{Dst: prefix("10.244.0.0/16")},
		{Dst: prefix("172.16.0.0/12"), Hops: []underlay.NextHop{gateway("192.168.0.253", false), gateway("192.168.0.254", true), gateway("192.168.0.252", true)}},
	}}
	r := &recorder{}
	p := New(slog.New(slog.DiscardHandler), r, k)
	p.SetUplink(Uplink{Ifindex: 7, Name: "eth0", Port: 3})
	d := desired(peer("n2", "192.168.0.2", "10.244.2.0/24"))
	d.Services = []netip.Prefix{prefix("10.96.0.0/12"), prefix("203.0.113.7/32")}
	p.SetDesired(d)
	wantWays(t, p.Snapshot(), map[string]string{ // without a port to the node's stack
		"8.8.8.8":     "0.0.0.0/0 direct via 192.168.0.254 dev eth0 outside proto kernel",
		"192.168.0.7": "0.0.0.0/0 direct via 192.168.0.254 dev eth0 outside proto kernel",
		"192.168.0.1": "192.168.0.1/32 local proto kernel",
	})
	p.SetHost(Host{Dev: "culvert0", Port: 5, MAC: packet.MAC{2, 5: 5}, MTU: 1450})
	wantWays(t, p.Snapshot(), map[string]string{
		"8.8.8.8":      "0.0.0.0/0 direct via 192.168.0.254 dev eth0 outside proto kernel",
		"192.168.0.7":  "192.168.0.0/24 local dev culvert0 outside proto kernel",
		"192.168.0.1":  "192.168.0.1/32 local dev culvert0 proto kernel",
		"192.168.0.2":  "192.168.0.2/32 vxlan via 192.168.0.2 dev eth0 proto node",
		"172.17.0.1":   "172.17.0.1/32 local dev culvert0 proto address",
		"10.9.9.9":     "10.0.0.0/8 local dev culvert0 outside proto kernel", // the kernel asks for the gateway
		"10.244.2.9":   "10.244.2.0/24 vxlan via 192.168.0.2 dev eth0 proto culvert",
		"10.244.1.9":   "10.244.1.0/24 blackhole proto culvert",
		"10.96.0.10":   "10.96.0.10/32 local dev culvert0 proto address",
		"10.96.0.11":   "10.96.0.0/12 local dev culvert0 proto service",
		"203.0.113.7":  "203.0.113.7/32 local dev culvert0 proto service",
		"10.244.1.0":   "10.244.1.0/32 local dev culvert0 proto kernel",
		"172.16.0.1":   "172.16.0.0/12 direct via 192.168.0.254 dev eth0 outside proto kernel",
		"2001:db8::99": "nowhere",
	})
	outside, _ := p.Snapshot().Route(prefix("172.16.0.0/12"))
	if got := len(p.Snapshot().Members(outside.Adj)); got != 2 {
		t.Errorf("the route of two gateways that answer has %d members", got)
	}
	_, adj, _ := p.Snapshot().Lookup(packet.AddrFrom(addr("10.96.0.10")))
	if adj.Port != 5 || adj.MTU != 1450 || adj.Rewrite.Len != packet.EthernetLen {
		t.Errorf("the way to the node's stack: %+v", adj)
	}

	// Things change: a gateway answers, a Service goes, the default route goes.
	k.routes[5].Hops = []underlay.NextHop{gateway("192.168.0.253", true)}
	k.routes = k.routes[1:]
	p.UnderlayChanged()
	less := *d
	less.Services = d.Services[:1]
	p.SetDesired(&less)
	wantWays(t, p.Snapshot(), map[string]string{
		"10.9.9.9":    "10.0.0.0/8 direct via 192.168.0.253 dev eth0 outside proto kernel",
		"8.8.8.8":     "nowhere",
		"203.0.113.7": "nowhere",
		"10.96.0.11":  "10.96.0.0/12 local dev culvert0 proto service",
	})
	if drift := p.Repair(); drift.Any() {
		t.Errorf("drift: %+v", drift)
	}
	p.RemoveUplink(7)
	wantWays(t, p.Snapshot(), map[string]string{"10.9.9.9": "10.0.0.0/8 local dev culvert0 outside proto kernel"})
	for i := 1; i < len(r.snaps); i++ {
		for route := range r.snaps[i].Routes() {
			if r.snaps[i].Adjacency(route.Adj) == nil {
				t.Fatalf("snapshot %d: route %s leads to nothing", i, route.Prefix)
			}
		}
	}
}

// Before the cluster says who this node is, nobody can say which packets leave it with
// what address: none do.
func TestNoWayOutsideForNobody(t *testing.T) {
	k := &kernel{network{}, []underlay.Route{{Dst: prefix("0.0.0.0/0"), Hops: []underlay.NextHop{gateway("192.168.0.254", true)}}}}
	p := New(slog.New(slog.DiscardHandler), &recorder{}, k)
	p.SetUplink(Uplink{Ifindex: 7, Name: "eth0", Port: 3})
	p.SetHost(Host{Dev: "culvert0", Port: 5, MAC: packet.MAC{2, 5: 5}, MTU: 1450})
	wantWays(t, p.Snapshot(), map[string]string{"8.8.8.8": "nowhere"})
	p.SetDesired(desired())
	wantWays(t, p.Snapshot(), map[string]string{"8.8.8.8": "0.0.0.0/0 direct via 192.168.0.254 dev eth0 outside proto kernel"})
}
