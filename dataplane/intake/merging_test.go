package intake

import (
	"bytes"
	"net"
	"os"
	"strings"
	"testing"

	"culvert/dataplane/frame"
	"culvert/dataplane/xsk"
	"culvert/internal/ethtool"
	"culvert/internal/testnet"

	"github.com/vishvananda/netlink"
)

// addTunnel makes a VXLAN device at the uplink's other end and a way to send from
// it, with the uplink cutting what it sends.
func (p *pod) addTunnel(t *testing.T, remote net.IP) (inner *pod, mac [6]byte) {
	t.Helper()
	p.ns.Do(t, func() {
		l := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx", MTU: 1430}, VxlanId: 1, Port: 8472, Group: remote}
		if err := netlink.LinkAdd(l); err != nil {
			t.Fatal(err)
		}
	})
	p.ns.Sysctl(t, "net.ipv6.conf.vx.disable_ipv6", "1")
	p.ns.Up(t, "vx")
	p.ns.Do(t, func() {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			err = netlink.LinkSetGSOMaxSegs(l, 1)
		}
		if err == nil { // what a veth with TSO sends is not offered to GRO (drivers/net/veth.c, veth_skb_is_eligible_for_gro)
			err = ethtool.Set("eth0", false, "tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation", "tx-tcp6-segmentation")
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	copy(mac[:], p.ns.Attrs(t, "vx").HardwareAddr)
	return &pod{sock: packetSocket(t, p.ns, "vx", 0)}, mac
}

// MTU-sized frames of a kernel's tunnel arrive as the big frame they were cut from.
func TestTunnelledSegmentsArriveMerged(t *testing.T) {
	for name, c := range map[string]struct {
		addr    string
		headers int
	}{"IPv4": {"10.7.0.1", 50}, "IPv6": {"fd07::1", 70}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1)
			p := r.addUplink()
			if err := p.attach.Merging(); err != nil {
				t.Fatal(err)
			}
			p.ns.MustPing(t, c.addr) // the neighbour is known
			inner, mac := p.addTunnel(t, net.ParseIP(c.addr))
			seen := packetSocketAll(t, p.ns, "eth0")
			sent := segment(mac, 1, 1, 20*1200, 1200)
			inner.send(t, sent)
			for _, b := range seen.wait(t, 20) {
				if len(b) > 1514 {
					t.Fatalf("a frame of %d bytes crossed the wire", len(b))
				}
			}
			var payload []byte
			frames := 0
			waitUntil(t, "all segments have come", func() bool {
				for _, got := range r.receive(0) {
					frames++
					payload = append(payload, got.bytes[c.headers+54:]...)
					if got.Rest == nil {
						continue // the one that the kernel began with, alone
					}
					if got.SegSize != 1200 || got.Flags&frame.SegTCP4 == 0 || got.CsumStart != uint16(c.headers)+34 || got.CsumOffset != 16 {
						t.Errorf("%+v", got.Frame)
					}
				}
				return len(payload) >= len(sent)-64
			})
			if !bytes.Equal(payload, sent[64:]) {
				t.Errorf("of %d bytes came %d, or others", len(sent)-64, len(payload))
			}
			if frames > 4 { // the kernel may end one when it polls the device again
				t.Errorf("20 segments came in %d frames", frames)
			}
		})
	}
}

// bindable reports whether a UDP port is free in a namespace: one of the kernel's
// tunnels is in no list of sockets.
func bindable(t *testing.T, ns *testnet.NS, port string) (ok bool) {
	t.Helper()
	ns.Do(t, func() {
		if l, err := net.ListenPacket("udp4", ":"+port); err == nil {
			ok = true
			l.Close()
		}
	})
	return ok
}

// The kernel's port is open while an uplink has an endpoint in it, and the device's
// setting is afterwards as it was.
func TestMergingEnds(t *testing.T) {
	r := newRig(t, 1)
	first, second := r.addUplink(), r.addVeth()
	gro := func(p *pod) (on bool) {
		r.node.Do(t, func() { on, _ = ethtool.Feature(p.name, ethtool.GRO) })
		return on
	}
	if !gro(first) || gro(second) {
		t.Fatalf("GRO is %t and %t", gro(first), gro(second))
	}
	r.node.Do(t, func() {
		if err := ethtool.Set(second.name, true, ethtool.GRO); err != nil {
			t.Fatal(err)
		}
		var err error
		second.attach, err = r.in.AttachUplink(ifindex(t, second.name), second.name, 8, []xsk.Endpoint{{Addr: node4, Port: 8472}})
		if err != nil {
			t.Fatal(err)
		}
	})
	if bindable(t, r.node, "8472") || !bindable(t, r.node, "4789") {
		t.Error("port 8472 is free, or 4789 is not")
	}
	if err := first.attach.Close(); err != nil {
		t.Fatal(err)
	}
	if bindable(t, r.node, "8472") {
		t.Error("the port of the other uplink is closed, too")
	}
	if err := second.attach.SetEndpoints([]xsk.Endpoint{{Addr: node4, Port: 4789}}); err != nil {
		t.Fatal(err)
	}
	if !bindable(t, r.node, "8472") || bindable(t, r.node, "4789") {
		t.Error("the port did not follow the endpoint")
	}
	if err := second.attach.Close(); err != nil {
		t.Fatal(err)
	}
	if !bindable(t, r.node, "4789") {
		t.Error("the port is left open")
	}
	if gro(first) || !gro(second) {
		t.Errorf("GRO is %t and %t afterwards", gro(first), gro(second))
	}
}

// Another tunnel device of the node's, older or younger, shares the port and gets
// what is its own; what is nobody's gets no further than the kernel's tunnel.
func TestTunnelsShareThePort(t *testing.T) {
	r := newRig(t, 1)
	addVXLAN := func(ns *testnet.NS, name string, vni int, remote net.IP, addr string) {
		ns.Do(t, func() {
			err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: name}, VxlanId: vni, Port: 8472, Group: remote})
			if err != nil {
				t.Fatal(err)
			}
		})
		ns.AddAddr(t, name, addr)
		ns.Up(t, name)
	}
	addVXLAN(r.node, "old", 7, net.IPv4(10, 8, 0, 2), "10.17.0.1/24")
	p := r.addUplink()
	if err := p.attach.Merging(); err != nil {
		t.Fatal(err)
	}
	addVXLAN(r.node, "young", 8, net.IPv4(10, 8, 0, 2), "10.18.0.1/24")
	// They are of another address of the node's: those of 10.7.0.1 are all ours.
	r.node.AddAddr(t, p.name, "10.8.0.1/24")
	p.ns.AddAddr(t, "eth0", "10.8.0.2/24")
	addVXLAN(p.ns, "old", 7, net.IPv4(10, 8, 0, 1), "10.17.0.2/24")
	addVXLAN(p.ns, "young", 8, net.IPv4(10, 8, 0, 1), "10.18.0.2/24")
	p.ns.MustPing(t, "10.17.0.1")
	p.ns.MustPing(t, "10.18.0.1")
	addVXLAN(p.ns, "idle", idleVNI, net.IPv4(10, 8, 0, 1), "10.19.0.2/24")
	before := counter4(t, r.node, "InReceives")
	inner := packetSocket(t, p.ns, "idle", 0)
	var mac [6]byte
	copy(mac[:], p.ns.Attrs(t, "idle").HardwareAddr)
	(&pod{sock: inner}).send(t, datagram(mac, net.IPv4(10, 7, 0, 1), 9999, 100))
	p.ns.MustPing(t, "10.8.0.1") // which comes behind it
	if n := counter4(t, r.node, "InReceives") - before; n > 3 {
		t.Errorf("%d packets arrived, want the tunnel's and the ping's", n)
	}
	r.expect(0)
}

// A process that ends leaves no device behind: they are in the intake's namespace.
func TestTunnelDevicesAreNotTheHosts(t *testing.T) {
	r := newRig(t, 1)
	r.addUplink()
	r.node.Do(t, func() {
		b, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil || strings.Contains(string(b), "vxlan") {
			t.Errorf("%v\n%s", err, b)
		}
	})
}
