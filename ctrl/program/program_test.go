package program

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"culvert/ctrl/flavour"
	"culvert/ctrl/underlay"
	"culvert/fib"
	"culvert/internal/packet"
)

// recorder is an engine that keeps what was published.
type recorder struct{ snaps []*fib.Snapshot }

func (r *recorder) Publish(s *fib.Snapshot) { r.snaps = append(r.snaps, s) }

// network is an underlay in memory.
type network map[netip.Addr][]underlay.NextHop

func (n network) NextHops(dst netip.Addr) ([]underlay.NextHop, error) {
	all, ok := n[dst]
	if !ok {
		return nil, errors.New("network is unreachable")
	}
	return all, nil
}

func (network) Routes() []underlay.Route { return nil }

// kernel is a network whose kernel has routes.
type kernel struct {
	network
	routes []underlay.Route
}

func (k *kernel) Routes() []underlay.Route { return k.routes }

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

func resolved(dst string) []underlay.NextHop {
	return []underlay.NextHop{{
		Dev: "eth0", Ifindex: 7, Via: addr(dst), MTU: 1500, Resolved: true, State: "REACHABLE",
		SrcMAC: packet.MAC{2, 0, 0, 0, 0, 1}, MAC: packet.MAC{2, 0, 0, 0, 0, 2}, Weight: 1,
	}}
}

func peer(name, ip, cidr string) flavour.Peer {
	p := prefix(cidr)
	return flavour.Peer{
		Name: name, PublicIP: addr(ip), PodCIDRs: []netip.Prefix{p}, TunnelIP: p.Addr(), VTEPMAC: flavour.VTEPMAC(name), Encap: "vxlan",
	}
}

func desired(peers ...flavour.Peer) *flavour.Desired {
	return &flavour.Desired{
		Mode: "native", Encap: "vxlan", VNI: 4096, Port: 4789, Peers: peers,
		NAT: flavour.NAT{Sources: []netip.Prefix{prefix("10.244.0.0/16")}, Low: 61000, High: 65535},
		Local: &flavour.Node{
			Name: "n1", PublicIP: addr("192.168.0.1"), PodCIDRs: []netip.Prefix{prefix("10.244.1.0/24")},
			TunnelIP: addr("10.244.1.0"), VTEPMAC: flavour.VTEPMAC("n1"),
		},
	}
}

func newTest(n network) (*Programmer, *recorder) {
	r := &recorder{}
	p := New(slog.New(slog.DiscardHandler), r, n)
	p.SetPodMTU(1450)
	p.SetUplink(Uplink{Ifindex: 7, Name: "eth0", Port: 3})
	return p, r
}

// lines is a snapshot as text, a line per row, but for the routes to the peers
// themselves, of which TestPeersThemselves is.
func lines(s *fib.Snapshot) (out []string) {
	for r := range s.Routes() {
		a := s.Adjacency(r.Adj)
		if r.Protocol == protoNode {
			continue
		}
		out = append(out, fmt.Sprintf("route %s %s via %v ready %v proto %s", r.Prefix, a.Kind, a.Via, a.Ready, r.Protocol))
	}
	for e := range s.FDB() {
		out = append(out, fmt.Sprintf("fdb %s dst %s %s", e.MAC, e.Dst, e.Flags))
	}
	for n := range s.Neighbours() {
		out = append(out, fmt.Sprintf("neigh %s lladdr %s %s", n.Addr, n.MAC, n.State))
	}
	return out
}

func want(t *testing.T, s *fib.Snapshot, rows ...string) {
	t.Helper()
	if got := lines(s); !slices.Equal(got, rows) {
		t.Errorf("tables:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(rows, "\n  "))
	}
}

func TestTablesFollowTheInputs(t *testing.T) {
	n := network{}
	p, _ := newTest(n)
	want(t, p.Snapshot())

	own := []string{
		"route 10.244.1.0/24 blackhole via invalid IP ready true proto culvert",
		"route 10.244.1.0/32 local via invalid IP ready true proto kernel",
	}
	host := "route 192.168.0.1/32 local via invalid IP ready true proto kernel"
	mac := flavour.VTEPMAC("n2").String()
	overlay := []string{"fdb " + mac + " dst 192.168.0.2 self permanent", "neigh 10.244.2.0 lladdr " + mac + " PERMANENT"}

	// A peer that cannot be reached has its routes, not ready: nothing for it
	// may take a wider one.
	p.SetDesired(desired(peer("n2", "192.168.0.2", "10.244.2.0/24")))
	want(t, p.Snapshot(), slices.Concat(own, []string{"route 10.244.2.0/24 vxlan via 192.168.0.2 ready false proto culvert", host}, overlay)...)

	n[addr("192.168.0.2")] = resolved("192.168.0.2")
	p.UnderlayChanged()
	ready := "route 10.244.2.0/24 vxlan via 192.168.0.2 ready true proto culvert"
	want(t, p.Snapshot(), slices.Concat(own, []string{ready, host}, overlay)...)

	pod := Pod{Dev: "cvaa", Port: 9, MAC: packet.MAC{2, 5: 9}, Addrs: []netip.Addr{addr("10.244.1.5")}, MTU: 1450}
	if err := p.AddPod(pod); err != nil {
		t.Fatal(err)
	}
	podRow := "route 10.244.1.5/32 pod via invalid IP ready true proto cni"
	want(t, p.Snapshot(), slices.Concat(own, []string{podRow, ready, host}, overlay)...)
	if _, adj, _ := p.Snapshot().Lookup(packet.AddrFrom(addr("10.244.1.5"))); adj.Port != 9 || adj.MTU != 1450 {
		t.Errorf("the pod's adjacency: %+v", adj)
	}

	p.RemovePod("cvaa")
	p.SetDesired(desired())
	want(t, p.Snapshot(), slices.Concat(own, []string{host})...)
}

// The template of a peer, as it will stand on the wire.
func TestPeerTemplate(t *testing.T) {
	p, _ := newTest(network{addr("192.168.0.2"): resolved("192.168.0.2")})
	p.SetDesired(desired(peer("n2", "192.168.0.2", "10.244.2.0/24")))
	_, adj, _ := p.Snapshot().Lookup(packet.AddrFrom(addr("10.244.2.9")))
	if adj.Port != 3 || adj.MTU != 1450 || adj.VNI != 4096 || adj.MAC != flavour.VTEPMAC("n2") || adj.Dev != "eth0" {
		t.Errorf("adjacency %+v", adj)
	}
	h := adj.Rewrite.Bytes[:adj.Rewrite.Len]
	if got := packet.MAC(h[0:6]).String(); got != "02:00:00:00:00:02" {
		t.Errorf("outer destination MAC %s", got)
	}
	if got := packet.MAC(h[50:56]); got != flavour.VTEPMAC("n2") {
		t.Errorf("inner destination MAC %s", got)
	}
	if got := packet.MAC(h[56:62]); got != flavour.VTEPMAC("n1") {
		t.Errorf("inner source MAC %s", got)
	}
}

func TestMTUIsTheNarrowerOne(t *testing.T) {
	nh := resolved("192.168.0.2")
	nh[0].MTU = 1400
	p, _ := newTest(network{addr("192.168.0.2"): nh})
	p.SetDesired(desired(peer("n2", "192.168.0.2", "10.244.2.0/24")))
	if _, adj, _ := p.Snapshot().Lookup(packet.AddrFrom(addr("10.244.2.9"))); adj.MTU != 1350 {
		t.Errorf("MTU %d, want the path's 1350", adj.MTU)
	}
}

func TestNothingIsPublishedWithoutChange(t *testing.T) {
	p, r := newTest(network{addr("192.168.0.2"): resolved("192.168.0.2")})
	p.SetDesired(desired(peer("n2", "192.168.0.2", "10.244.2.0/24")))
	before := len(r.snaps)
	p.UnderlayChanged()
	p.SetDesired(desired(peer("n2", "192.168.0.2", "10.244.2.0/24")))
	if len(r.snaps) != before {
		t.Errorf("%d snapshots were published for no change", len(r.snaps)-before)
	}
}

func TestPodAddressIsOneOwners(t *testing.T) {
	p, r := newTest(network{})
	a := Pod{Dev: "cva", Port: 1, Addrs: []netip.Addr{addr("10.244.1.5")}, MTU: 1450}
	b := Pod{Dev: "cvb", Port: 2, Addrs: []netip.Addr{addr("10.244.1.5")}, MTU: 1450}
	if err := p.AddPod(a); err != nil {
		t.Fatal(err)
	}
	before := len(r.snaps)
	if err := p.AddPod(b); err == nil || !strings.Contains(err.Error(), "10.244.1.5") {
		t.Errorf("error %v", err)
	}
	if len(r.snaps) != before {
		t.Error("a refused pod changed the tables")
	}
	if err := p.AddPod(a); err != nil {
		t.Errorf("the same pod again: %v", err)
	}
}

// A peer that left is forgotten: nodes come and go under ever new names.
func TestPeersAreForgotten(t *testing.T) {
	p, _ := newTest(network{})
	p.SetDesired(desired(peer("n2", "192.168.0.2", "10.244.2.0/24"), peer("n3", "192.168.0.3", "10.244.3.0/24")))
	p.SetDesired(desired(peer("n3", "192.168.0.3", "10.244.3.0/24")))
	if len(p.peers) != 1 || p.peers["n3"] == "" {
		t.Errorf("complaints of %v", p.peers)
	}
}

// A peer behind a device that is no uplink of ours, or that went away, is not
// ready; its frames must not leave by a stale port.
func TestUplinkRemoved(t *testing.T) {
	p, _ := newTest(network{addr("192.168.0.2"): resolved("192.168.0.2")})
	p.SetDesired(desired(peer("n2", "192.168.0.2", "10.244.2.0/24")))
	p.RemoveUplink(7)
	if _, adj, _ := p.Snapshot().Lookup(packet.AddrFrom(addr("10.244.2.9"))); adj.Ready {
		t.Error("the peer is ready without an uplink")
	}
}
