package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/internal/lab"
	kit "culvert/internal/pkttest"
)

// Pods of two nodes exchange everything without a tunnel and in IPIP, the uplinks
// held by the intake or by XDP programs of their own, the other node Culvert or, with
// routes alone, the kernel.
func TestEncapsulationsExchangeEverything(t *testing.T) {
	for _, c := range []struct {
		name string
		opts lab.Options
	}{
		{"ipip", lab.Options{Encap: "ipip", Interfaces: []string{"veth", "tap"}}},
		{"ipip, generic", lab.Options{Encap: "ipip", Config: "xdp: {mode: generic}\n"}},
		{"ipip, native", lab.Options{Encap: "ipip", Config: "xdp: {mode: native}\n"}},
		{"none", lab.Options{Encap: "none", Family: lab.Dual, Interfaces: []string{"veth", "tap"}}},
		{"none over IPv6", lab.Options{Encap: "none", Family: lab.Dual, Underlay: lab.IPv6}},
		{"none, generic", lab.Options{Encap: "none", Family: lab.Dual, Config: "xdp: {mode: generic}\n"}},
		{"none, native", lab.Options{Encap: "none", Config: "xdp: {mode: native}\n"}},
		{"none with flannel's host-gw", lab.Options{Encap: "none", Peer: lab.Flannel}},
		{"none with Calico", lab.Options{Encap: "none", Peer: lab.Calico, Interfaces: []string{"veth", "tap"}}},
		{"none with Calico, generic", lab.Options{Encap: "none", Peer: lab.Calico, Config: "xdp: {mode: generic}\n"}},
		{"vxlan across subnets", lab.Options{CrossSubnet: true}},
		{"ipip across subnets", lab.Options{Encap: "ipip", CrossSubnet: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := up(t, c.opts)
			ours, far := l.Nodes[0], l.Nodes[1]
			if s := culvertJSON[api.Status](t, ours, "status"); s.Encap != l.Encap || s.MTU != l.PodMTU() {
				t.Errorf("encap %s, mtu %d; want %s, %d", s.Encap, s.MTU, l.Encap, l.PodMTU())
			}
			for i := range ours.Pods {
				a, b := ours.Pods[i], far.Pods[i]
				for k := range b.Addrs {
					exchange(t, l, a, b, b.Addrs[k])
					exchange(t, l, b, a, a.Addrs[k])
				}
			}
			must(t, ours.Netns, "ping", "-n", "-c", "1", "-W", "2", far.Addr.String()) // the nodes' own
			for _, reason := range []string{"routed_source", "tunnel_source_mismatch", "tunnel_unknown_peer", "not_for_us", "cannot_segment"} {
				if n := dropped(t, ours, reason); n != 0 {
					t.Errorf("%d frames were dropped: %s", n, reason)
				}
			}
		})
	}
}

// echoOnWire is the first frame that holds an echo request of a ping from a pod to
// another, as it arrives at the other's node.
func echoOnWire(t *testing.T, from, to *lab.Pod, wire *tap, size int) []byte {
	t.Helper()
	must(t, from.Netns, "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-t", "33", "-s", fmt.Sprint(size), to.Addr.String())
	src, dst := from.Addr.As4(), to.Addr.As4()
	for {
		f := wire.receive(t, 2*time.Second)
		if f == nil {
			t.Fatalf("no echo request of %d bytes from %s was seen on the wire", size, from.Name)
		}
		for _, pair := range []int{14, 34, 64} { // no tunnel, IPIP, VXLAN
			if len(f) > pair+28 && f[pair] == 0x45 && f[pair+9] == 1 && f[pair+20] == 8 &&
				[4]byte(f[pair+12:]) == src && [4]byte(f[pair+16:]) == dst && len(f) == pair+28+size {
				return f
			}
		}
	}
}

// What is on the wire in each mode, and what the operator sees of it.
func TestEncapsulationsOnTheWire(t *testing.T) {
	t.Run("ipip", func(t *testing.T) {
		c := up(t, lab.Options{Encap: "ipip", Pods: 1})
		a, b := c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]
		f := echoOnWire(t, a, b, openTap(t, c.Nodes[1].Netns), 56)
		inner := kit.CheckIPIP(t, f, kit.OuterSrc(c.Nodes[0].Addr.String()), kit.OuterDst(c.Nodes[1].Addr.String()),
			kit.OuterTTL(32), kit.OuterTOS(0), kit.OuterDF(true), kit.Src(a.Addr.String()), kit.Dst(b.Addr.String()), kit.WithTTL(32))
		if want := 84; len(inner) != want {
			t.Errorf("the inner packet has %d bytes, want %d", len(inner), want)
		}
		wantRoute(t, c, b, "ipip", c.Nodes[1].Addr.String(), 1480)
		fdb := culvertJSON[[]api.FDBEntry](t, c.Nodes[0], "fdb")
		if len(fdb) != 0 {
			t.Errorf("FDB entries without VXLAN: %+v", fdb)
		}
		wantTrace(t, c, a, b, "ipip via "+c.Nodes[1].Addr.String(), "outer ttl 63")
	})
	t.Run("none", func(t *testing.T) {
		c := up(t, lab.Options{Encap: "none", Pods: 1})
		a, b := c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]
		f := echoOnWire(t, a, b, openTap(t, c.Nodes[1].Netns), 1472)
		kit.CheckPacket(t, f, kit.SrcMAC(devMAC(t, c.Nodes[0].Netns, "eth0")), kit.DstMAC(devMAC(t, c.Nodes[1].Netns, "eth0")),
			kit.Src(a.Addr.String()), kit.Dst(b.Addr.String()), kit.WithTTL(32), kit.WithDF(true))
		wantRoute(t, c, b, "direct", c.Nodes[1].Addr.String(), 1500)
		wantTrace(t, c, a, b, "direct via "+c.Nodes[1].Addr.String(), "mtu 1500, 14 bytes of headers")
	})
}

// wantTrace traces an echo request between pods, and wants what is shown to have all of
// the parts.
func wantTrace(t *testing.T, c *cluster, from, to *lab.Pod, parts ...string) {
	t.Helper()
	out := culvert(t, c.Nodes[0], "trace", "--src", from.Addr.String(), "--dst", to.Addr.String())
	for _, part := range parts {
		if !strings.Contains(out, part) {
			t.Errorf("the trace does not say %q:\n%s", part, out)
		}
	}
}

// Without a tunnel the kernel takes big frames of TCP whole at the uplink, as far as
// one IP packet can describe them, and hands over what it has merged; in IPIP they
// are cut, since no virtio_net_hdr describes them, and merged for the pod by whoever
// comes first.
func TestEncapsulationsBigFrames(t *testing.T) {
	for encap, whole := range map[string]bool{"none": true, "ipip": false} {
		t.Run(encap, func(t *testing.T) {
			c := up(t, lab.Options{Encap: encap, Pods: 1})
			a, b := c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]
			transfer(t, a.Netns, b.Netns, b.Addr.String(), 1, 32<<20/slower)
			big := culvertJSON[api.Status](t, c.Nodes[0], "status").Workers[0].Big
			if (big.Whole > 0) != whole || !whole && big.Cut == 0 {
				t.Errorf("the sender: %+v", big)
			}
			if big := culvertJSON[api.Status](t, c.Nodes[1], "status").Workers[0].Big; big.Whole == 0 && (whole || big.Merged == 0) {
				t.Errorf("the receiver got no merged segments: %+v", big)
			}
		})
	}
}

// wantRoute compares the first node's route to a pod.
func wantRoute(t *testing.T, c *cluster, to *lab.Pod, kind, via string, mtu int) {
	t.Helper()
	r := culvertJSON[api.Route](t, c.Nodes[0], "route", "get", to.Addr.String())
	if r.Kind != kind || r.Via != via || r.Dst != c.Nodes[1].PodCIDR.String() || r.Dev != "eth0" || r.MTU != mtu || (r.MAC != "") != (kind == "vxlan") {
		t.Errorf("route %+v, want %s via %s mtu %d", r, kind, via, mtu)
	}
	p := culvertJSON[[]api.Peer](t, c.Nodes[0], "peer")
	if want := map[string]string{"direct": "none"}[kind]; len(p) != 1 || want != "" && p[0].Encap != want || want == "" && p[0].Encap != kind {
		t.Errorf("peers %+v", p)
	}
}

// With crossSubnet a peer of the own subnet gets packets as they are; when the prefix of
// the node's address becomes another one, that is decided again, without a packet
// lost for good.
func TestCrossSubnetFollowsThePrefix(t *testing.T) {
	for _, encap := range []string{"vxlan", "ipip"} {
		t.Run(encap, func(t *testing.T) {
			c := up(t, lab.Options{Encap: encap, CrossSubnet: true, Pods: 1})
			a, b := c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]
			wire := openTap(t, c.Nodes[1].Netns)
			if f := echoOnWire(t, a, b, wire, 100); len(f) != 14+128 {
				t.Errorf("within the subnet a request takes %d bytes, want %d", len(f), 14+128)
			}
			wantRoute(t, c, b, "direct", c.Nodes[1].Addr.String(), 1500)
			setPrefix(t, c, 24, 32)
			eventually(t, "encapsulated", func() error {
				for i, n := range c.Nodes {
					if r := culvertJSON[api.Route](t, n, "route", "get", c.Nodes[1-i].Pods[0].Addr.String()); r.Kind != encap || r.Unresolved {
						return fmt.Errorf("%s: %+v", n.Name, r)
					}
				}
				return nil
			})
			overhead := map[string]int{"vxlan": 50, "ipip": 20}[encap]
			if f := echoOnWire(t, a, b, wire, 100); len(f) != 14+128+overhead {
				t.Errorf("across subnets a request takes %d bytes, want %d", len(f), 14+128+overhead)
			}
			exchange(t, c, a, b, b.Addr)
			setPrefix(t, c, 32, 24)
			eventually(t, "as it is again", func() error {
				for i, n := range c.Nodes {
					if r := culvertJSON[api.Route](t, n, "route", "get", c.Nodes[1-i].Pods[0].Addr.String()); r.Kind != "direct" || r.Unresolved {
						return fmt.Errorf("%s: %+v", n.Name, r)
					}
				}
				return nil
			})
			exchange(t, c, b, a, a.Addr)
		})
	}
}

// setPrefix gives both nodes' addresses another length. They stay on one link.
func setPrefix(t *testing.T, c *cluster, from, to int) {
	t.Helper()
	for _, n := range c.Nodes {
		subnet := netip.PrefixFrom(n.Addr, 24).Masked().String()
		must(t, n.Netns, "ip", "route", "replace", subnet, "dev", "eth0", "proto", "static", "metric", "7")
		must(t, n.Netns, "ip", "addr", "add", fmt.Sprintf("%s/%d", n.Addr, to), "dev", "eth0")
		must(t, n.Netns, "ip", "addr", "del", fmt.Sprintf("%s/%d", n.Addr, from), "dev", "eth0")
	}
}

// The path's MTU is told to pods and learnt, and each node on the way shows itself.
func TestEncapsulationsPathMTU(t *testing.T) {
	for _, o := range []lab.Options{{Encap: "ipip"}, {Encap: "none"}, {Encap: "none", Peer: lab.Calico}} {
		t.Run(o.Encap+" "+string(o.Peer), func(t *testing.T) {
			c := up(t, o)
			a, b := c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]
			if got, want := hops(t, a, b.Addr), []string{c.Nodes[0].Addr.String(), c.Nodes[1].Addr.String(), b.Addr.String()}; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("traceroute shows %v, want %v", got, want)
			}
			const narrow = 1400 // of the route, as of a link on the way
			must(t, c.Nodes[0].Netns, "ip", "route", "replace", c.Nodes[1].Addr.String(), "dev", "eth0", "mtu", fmt.Sprint(narrow))
			told := fmt.Sprint("mtu = ", narrow-(c.MTU-c.PodMTU()))
			eventually(t, "a packet that is too big is refused", func() error {
				out, err := netns(a.Netns, "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1440", b.Addr.String())
				if err == nil || !strings.Contains(out, told) {
					return fmt.Errorf("%v, want %s\n%s", err, told, out)
				}
				return nil
			})
			transfer(t, a.Netns, b.Netns, b.Addr.String(), 1, 4<<20)
			must(t, a.Netns, "ip", "route", "flush", "cache")
			transfer(t, a.Netns, b.Netns, b.Addr.String(), 1, 4<<20)
			echoUDP(t, a.Netns, b.Netns, b.Addr.String(), 2000, 9000)
		})
	}
}

// Without a tunnel there is no outer source to trust: packets that name a source that
// is not a peer's end at the node, and the kernel of the node never sees them.
func TestRoutedSourcesAreChecked(t *testing.T) {
	c := up(t, lab.Options{Encap: "none", Pods: 1, Peer: lab.Calico})
	a := c.Nodes[0].Pods[0]
	wire := openTap(t, c.Nodes[1].Netns)
	pod := openTap(t, a.Netns)
	src, dst := devMAC(t, c.Nodes[1].Netns, "eth0"), devMAC(t, c.Nodes[0].Netns, "eth0")
	for name, from := range map[string]string{
		"the pod itself": a.Addr.String(), "another prefix of the cluster": "10.244.9.9", "a stranger": "203.0.113.9", "the node itself": c.Nodes[0].Addr.String(),
	} {
		before := dropped(t, c.Nodes[0], "routed_source")
		wire.send(t, kit.Frame(t, kit.Eth(src, dst), kit.IP4(from, a.Addr.String()), kit.UDP(7, 4711), kit.Payload(20)))
		eventually(t, name, func() error {
			if got := dropped(t, c.Nodes[0], "routed_source") - before; got != 1 {
				return fmt.Errorf("%d frames were dropped, want 1", got)
			}
			return nil
		})
	}
	for f := pod.receive(t, 100*time.Millisecond); f != nil; f = pod.receive(t, 100*time.Millisecond) {
		if len(f) > 38 && f[23] == 17 && binary.BigEndian.Uint16(f[36:]) == 4711 {
			t.Errorf("a frame reached the pod:\n%s", kit.Dump(f))
		}
	}
}
