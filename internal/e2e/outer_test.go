package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/internal/lab"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
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

// peerOf is what a node knows of another one.
func peerOf(t *testing.T, n, other *lab.Node) api.Peer {
	t.Helper()
	for _, p := range culvertJSON[[]api.Peer](t, n, "peer") {
		if p.Name == other.Name {
			return p
		}
	}
	t.Fatalf("%s does not know %s", n.Name, other.Name)
	return api.Peer{}
}

// Routers between the nodes have a link of 1400 bytes, and say so, for nobody cuts
// IPv6 on its way. The node learns the path MTU, tells the sender of the first packet
// at once, and everything arrives.
func TestNarrowPath6(t *testing.T) {
	c := up(t, lab.Options{})
	a, b := c.Nodes[0], c.Nodes[1]
	_, _, router := c.route(1400, true)
	from, to := a.Pods[0], b.Pods[0]
	eventually(t, "the first ping", func() error {
		_, err := netns(from.Netns, "ping", "-n", "-c", "1", "-W", "1", to.Addr.String())
		return err
	})
	if p := peerOf(t, a, b); p.PMTU != 0 || p.MTU != 1500-70 {
		t.Errorf("before: %+v", p)
	}
	// One packet, and its sender is told though the tables were wrong when it was sent.
	out, err := netns(from.Netns, "ping", "-n", "-c", "1", "-W", "3", "-M", "do", "-s", "1392", to.Addr.String())
	if err == nil || !strings.Contains(out, "mtu = 1330") {
		t.Errorf("ping of 1420 bytes: %v\n%s", err, out)
	}
	p := peerOf(t, a, b)
	if p.PMTU != 1400 || p.MTU != 1330 || p.Expires < 500 || p.Expires > 600 || p.Errors["too_big"] == 0 {
		t.Errorf("after: %+v", p)
	}
	if log, _ := os.ReadFile(a.LogFile); !strings.Contains(string(log), "mtu=1400 says="+router) {
		t.Error("the log does not say who said it")
	}
	must(t, from.Netns, "ip", "route", "flush", "cache")
	transfer(t, from.Netns, to.Netns, to.Addr.String(), 2, 4<<20)
	transfer(t, to.Netns, from.Netns, from.Addr.String(), 2, 4<<20)
	for _, w := range []way{{from, to}, {to, from}} { // so that the pods' kernels know: UDP loses what was too big
		netns(w.from.Netns, "ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", "1392", w.to.Addr.String())
	}
	echoUDP(t, from.Netns, to.Netns, to.Addr.String(), 1, 1302, 1303, 9000)
	if p := peerOf(t, b, a); p.PMTU != 1400 {
		t.Errorf("the other node: %+v", p)
	}
	if s := culvertJSON[api.Status](t, a, "status").Outer; s.Narrowed != 1 || s.Errors["too_big"] == 0 {
		t.Errorf("status: %+v", s)
	}
}

// VXLAN over IPv4 goes without DF: routers cut what is too large, and the receiving
// node puts it together, as a kernel node does. Nothing is lost, and both sides say
// what is wrong.
func TestOuterFragments(t *testing.T) {
	for _, tt := range []struct {
		sender lab.Kind
		config string
	}{{lab.Culvert, ""}, {lab.Culvert, "xdp: {mode: native}\n"}, {lab.Calico, ""}} {
		t.Run(fmt.Sprint(tt.sender, tt.config), func(t *testing.T) {
			c := up(t, lab.Options{Peer: tt.sender, Config: tt.config})
			a, b := c.Nodes[1], c.Nodes[0]
			c.route(1400, false)
			from, to := a.Pods[0], b.Pods[0]
			eventually(t, "the first ping", func() error {
				_, err := netns(from.Netns, "ping", "-n", "-c", "1", "-W", "1", to.Addr.String())
				return err
			})
			must(t, from.Netns, "ping", "-n", "-c", "20", "-i", "0.01", "-W", "2", "-M", "do", "-s", "1422", to.Addr.String())
			echoUDP(t, from.Netns, to.Netns, to.Addr.String(), 1, 1350, 1422, 1423, 9000)
			transfer(t, from.Netns, to.Netns, to.Addr.String(), 2, 2<<20)
			p := peerOf(t, b, a)
			if p.Fragmented < 20 || p.Fragment < 1300 || p.Fragment > 1400 || p.PMTU != 0 {
				t.Errorf("%+v", p)
			}
			if s := culvertJSON[api.Status](t, b, "status").Outer; s.Fragmented < 20 {
				t.Errorf("status: %+v", s)
			}
			log, _ := os.ReadFile(b.LogFile)
			if n := strings.Count(string(log), "come in fragments"); n != 1 || !strings.Contains(string(log), "peer="+a.Addr.String()) {
				t.Errorf("the log tells %d times of fragments, want once", n)
			}
			// Fragments of nobody's get as far as whole packets do.
			before := dropped(t, b, "tunnel_unknown_peer")
			stranger := "172.16.0.2"
			f := kit.Frame(t, kit.Eth("02:00:00:00:00:01", "02:00:00:00:00:02"), kit.IP4(stranger, b.Addr.String(), kit.ID(77)), kit.UDP(40000, c.Port),
				kit.VXLANHeader(c.VNI), kit.EthType("02:00:00:00:00:99", culvertJSON[api.Status](t, b, "status").VTEP.MAC, 0x0800),
				kit.IP4(from.Addr.String(), to.Addr.String()), kit.UDP(1, 2), kit.Payload(2000))[14:]
			sendIP(t, c.Name+"-r2", b.Addr.String(), cutIP(t, f, 1200)...)
			eventually(t, "a stranger's", func() error {
				if n := dropped(t, b, "tunnel_unknown_peer") - before; n != 1 {
					return fmt.Errorf("%d counted, want 1", n)
				}
				return nil
			})
		})
	}
}

// cutIP cuts an IPv4 packet without options into two fragments behind size bytes.
func cutIP(t *testing.T, p []byte, size int) (out [][]byte) {
	t.Helper()
	for _, part := range []struct {
		off, end int
		more     bool
	}{{0, size, true}, {size, len(p) - 20, false}} {
		f := append(append([]byte(nil), p[:20]...), p[20+part.off:20+part.end]...)
		h := packet.IPv4(f)
		h.SetTotalLen(len(f))
		frag := uint16(part.off / 8)
		if part.more {
			frag |= packet.IPv4MF
		}
		binary.BigEndian.PutUint16(f[6:], frag)
		h.SetCheck()
		out = append(out, f)
	}
	return out
}

// What a router says of a packet of ours over IPv4 is believed as far as it should be:
// if it quotes us, if the peer is one, if the packet was larger. What was learned is
// shown, counted, told to the sender, and forgotten again.
func TestErrorsAboutOuterPackets(t *testing.T) {
	c := up(t, lab.Options{})
	a, b := c.Nodes[0], c.Nodes[1]
	from, to := a.Pods[0], b.Pods[0]
	quote := func(src, dst string) []byte {
		return kit.Frame(t, kit.Eth("02:00:00:00:00:01", "02:00:00:00:00:02"), kit.IP4(src, dst), kit.UDP(40000, c.Port), kit.VXLANHeader(c.VNI),
			kit.Eth("02:00:00:00:00:03", "02:00:00:00:00:04"), kit.IP4(from.Addr.String(), to.Addr.String(), kit.DF()), kit.ICMP4(0, 0, 1, 1), kit.Payload(1400))[14:] // of an echo reply the kernel believes it without a socket
	}
	say := func(typ, code uint8, mtu uint16, q []byte) {
		t.Helper()
		sendIP(t, b.Netns, a.Addr.String(), kit.Frame(t, kit.Eth("02:00:00:00:00:01", "02:00:00:00:00:02"),
			kit.IP4(b.Addr.String(), a.Addr.String()), kit.ICMP4(typ, code, 0, mtu), kit.Bytes(q[:500]...))[14:])
	}
	ours := quote(a.Addr.String(), b.Addr.String())
	say(3, 4, 1300, quote("192.168.50.77", b.Addr.String()))
	say(3, 4, 1300, quote(a.Addr.String(), "192.168.50.77"))
	say(3, 4, 1480, ours) // which it was not larger than
	say(3, 3, 0, ours)
	say(3, 13, 0, ours)
	eventually(t, "errors are counted", func() error {
		p := peerOf(t, a, b)
		if fmt.Sprint(p.Errors) != "map[port_unreachable:1 prohibited:1 too_big:1]" || p.PMTU != 0 || p.MTU != 1450 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	say(3, 4, 1300, ours)
	eventually(t, "the MTU is learned", func() error {
		if p := peerOf(t, a, b); p.PMTU != 1300 || p.MTU != 1250 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	eventually(t, "the sender is told", func() error {
		if out := must(t, from.Netns, "ip", "route", "get", to.Addr.String()); !strings.Contains(out, "mtu 1250") {
			return errors.New(out)
		}
		return nil
	})
	if out := must(t, a.Netns, "ip", "route", "get", b.Addr.String()); strings.Contains(out, "mtu") {
		t.Errorf("the node's own route was changed: %s", out)
	}
	if out := culvert(t, a, "peer"); !strings.Contains(out, " 1250(") {
		t.Error(out)
	}
	must(t, a.Netns, "sysctl", "-qw", "net.ipv4.route.mtu_expires=1")
	say(3, 4, 1300, ours)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		p := peerOf(t, a, b)
		if p.PMTU == 0 && p.MTU == 1450 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not forgotten: %+v", p)
		}
	}
}
