//go:build vm

package encap_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/encap"
	"culvert/internal/drop"
	"culvert/internal/packet"
	"culvert/internal/pkttest"
	"culvert/internal/testnet"
)

// These tests run inside a virtual machine (make test-vm), whose kernel has IPIP.
// Linux is what IPIP templates are compared with, byte for byte:
//
//	pod 10.0.0.2 ── node, tunl0 as Calico sets it up ── wire 192.0.2.2
const (
	kernelPod, remotePod = "10.0.0.2", "10.0.9.2"
	kernelEnd, remoteEnd = "192.0.2.1", "192.0.2.2"
)

type tunnelNode struct {
	pod, node, wire *testnet.NS
	podMAC, nodeMAC string // as the pod sees the node
	outMAC, wireMAC string // of the node's uplink and of what is there
}

func newTunnelNode(t *testing.T) *tunnelNode {
	t.Helper()
	n := &tunnelNode{pod: testnet.NewNS(t), node: testnet.NewNS(t), wire: testnet.NewNS(t)}
	for _, ns := range []*testnet.NS{n.pod, n.node, n.wire} {
		ns.Sysctl(t, "net.ipv6.conf.default.disable_ipv6", "1")
	}
	n.node.Sysctl(t, "net.ipv4.ip_forward", "1")
	testnet.Veth(t, n.pod, "eth0", n.node, "pod0")
	testnet.Veth(t, n.node, "eth0", n.wire, "eth0")
	n.node.AddAddr(t, "pod0", "10.0.0.1/24")
	n.node.AddAddr(t, "eth0", kernelEnd+"/24")
	n.wire.AddAddr(t, "eth0", remoteEnd+"/24")
	n.podMAC, n.nodeMAC = hardware(t, n.pod, "eth0"), hardware(t, n.node, "pod0")
	n.outMAC, n.wireMAC = hardware(t, n.node, "eth0"), hardware(t, n.wire, "eth0")
	n.node.Do(t, func() {
		for dev, peer := range map[string][2]string{"pod0": {kernelPod, n.podMAC}, "eth0": {remoteEnd, n.wireMAC}} {
			mac, _ := net.ParseMAC(peer[1])
			if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: index(t, dev), State: netlink.NUD_PERMANENT, IP: net.ParseIP(peer[0]), HardwareAddr: mac}); err != nil {
				t.Fatal(err)
			}
		}
		tunl, err := netlink.LinkByName("tunl0")
		if err != nil {
			t.Fatal(err)
		}
		_, dst, _ := net.ParseCIDR("10.0.9.0/24")
		for _, step := range []func() error{
			func() error { return netlink.LinkSetMTU(tunl, 1480) },
			func() error { return netlink.LinkSetUp(tunl) },
			func() error {
				return netlink.RouteAdd(&netlink.Route{LinkIndex: tunl.Attrs().Index, Dst: dst, Gw: net.ParseIP(remoteEnd), Flags: int(netlink.FLAG_ONLINK)})
			},
		} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
	})
	return n
}

func hardware(t *testing.T, ns *testnet.NS, dev string) string {
	t.Helper()
	return ns.Attrs(t, dev).HardwareAddr.String()
}

func index(t *testing.T, dev string) int {
	t.Helper()
	ifi, err := net.InterfaceByName(dev)
	if err != nil {
		t.Fatal(err)
	}
	return ifi.Index
}

// raw is a packet socket on eth0 of a namespace. What it sends it does not receive.
func raw(t *testing.T, ns *testnet.NS) (fd int) {
	t.Helper()
	ns.Do(t, func() {
		const ipv4 = unix.ETH_P_IP >> 8 // in network order
		var err error
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, ipv4); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: index(t, "eth0")}); err != nil {
			t.Fatal(err)
		}
	})
	return fd
}

func write(t *testing.T, fd int, f []byte) {
	t.Helper()
	if _, err := unix.Write(fd, f); err != nil {
		t.Fatal(err)
	}
}

// next is the next frame whose IPv4 header at offset off has that identification.
func next(t *testing.T, fd, off int, ids ...uint16) []byte {
	t.Helper()
	b := make([]byte, 1<<16)
	for {
		n, err := unix.Read(fd, b)
		if err != nil {
			t.Fatalf("waiting for the packets %v: %v", ids, err)
		}
		if n < off+packet.IPv4Len || b[off] != 0x45 {
			continue
		}
		for _, id := range ids {
			if binary.BigEndian.Uint16(b[off+4:]) == id {
				return b[:n]
			}
		}
	}
}

// What Push writes is what the kernel sends for the same packet, but for the
// identification, which it has from the caller and the kernel from a counter.
func TestVMPushIPIPAsTheKernel(t *testing.T) {
	n := newTunnelNode(t)
	in, out := raw(t, n.pod), raw(t, n.wire)
	template, err := encap.IPIP(encap.IPIPParams{SrcMAC: mac(n.outMAC), DstMAC: mac(n.wireMAC), Src: mustAddr(kernelEnd), Dst: mustAddr(remoteEnd)})
	if err != nil {
		t.Fatal(err)
	}
	id, outerIDs := uint16(0), map[uint16]bool{}
	check := func(name string, payload int, opts ...func(*layers.IPv4)) {
		t.Helper()
		id++
		write(t, in, pkttest.Frame(t, pkttest.Eth(n.podMAC, n.nodeMAC),
			pkttest.IP4(kernelPod, remotePod, append(opts, pkttest.ID(id))...), pkttest.UDP(1000, 2000), pkttest.Payload(payload)))
		kernel := next(t, out, packet.EthernetLen+packet.IPv4Len, id)
		outerID := binary.BigEndian.Uint16(kernel[packet.EthernetLen+4:])
		outerIDs[outerID] = true
		ours := pushed(&template, kernel[packet.EthernetLen+packet.IPv4Len:], encap.Inner{ID: outerID})
		if string(ours) != string(kernel) {
			t.Errorf("%s: we send\n%s\nthe kernel\n%s", name, pkttest.Dump(ours), pkttest.Dump(kernel))
		}
	}
	df := [2][]func(*layers.IPv4){nil, {pkttest.DF()}}
	for i, name := range []string{"", ", DF"} {
		for tos := range 256 {
			check(fmt.Sprintf("TOS %#02x%s", tos, name), 20, append(df[i], pkttest.TOS(uint8(tos)))...)
		}
		for ttl := 2; ttl < 256; ttl++ {
			check(fmt.Sprint("TTL ", ttl, name), 20, append(df[i], pkttest.TTL(uint8(ttl)))...)
		}
		for n := 18; n <= 1452; n += 239 {
			check(fmt.Sprint("payload of ", n, name), n, df[i]...)
		}
		check("the largest", 1452, df[i]...)
	}
	check("a first fragment", 64, pkttest.Fragment(0, true))
	check("a middle fragment", 64, pkttest.Fragment(800, true))
	check("a last fragment", 64, pkttest.Fragment(1600, false))
	// The kernel gives every packet an identification of its own, those with DF
	// as well (iptunnel_xmit): never 0, as ours.
	if len(outerIDs) != int(id) || outerIDs[0] {
		t.Errorf("%d packets of the kernel have %d outer identifications, 0 among them: %t", id, len(outerIDs), outerIDs[0])
	}
}

// What the kernel gets out of the tunnel, or drops, is what Classify, PopIPIP and
// DecapECN make of the same frame.
func TestVMPopIPIPAsTheKernel(t *testing.T) {
	n := newTunnelNode(t)
	in, out := raw(t, n.wire), raw(t, n.pod)
	id := uint16(0)
	frame := func(outer, inner []func(*layers.IPv4)) []byte {
		id++
		return pkttest.Frame(t, pkttest.Eth(n.wireMAC, n.outMAC),
			pkttest.IP4(remoteEnd, kernelEnd, append(outer, pkttest.Proto(unix.IPPROTO_IPIP))...),
			pkttest.IP4(remotePod, kernelPod, append(inner, pkttest.ID(id))...), pkttest.UDP(1000, 2000), pkttest.Payload(30))
	}
	check := func(name string, f []byte) {
		t.Helper()
		mine := id
		write(t, in, f)
		write(t, in, frame(nil, nil)) // comes through, behind it
		got := next(t, out, packet.EthernetLen, mine, id)
		kernel := "dropped"
		if binary.BigEndian.Uint16(got[packet.EthernetLen+4:]) == mine {
			kernel = string(got[packet.EthernetLen:])
			next(t, out, packet.EthernetLen, id)
		}
		if ours := popped(f); ours != kernel {
			t.Errorf("%s: ours is\n%x\nthe kernel's\n%x", name, ours, kernel)
		}
	}
	for outer := range uint8(4) {
		for inner := range uint8(4) {
			check(fmt.Sprintf("ECN %d in %d", inner, outer),
				frame([]func(*layers.IPv4){pkttest.TOS(0xb8 | outer)}, []func(*layers.IPv4){pkttest.TOS(0x28 | inner)}))
		}
	}
	for _, ttl := range []uint8{1, 2, 64, 255} {
		check(fmt.Sprint("outer TTL ", ttl), frame([]func(*layers.IPv4){pkttest.TTL(ttl)}, nil))
		check(fmt.Sprint("inner TTL ", ttl), frame(nil, []func(*layers.IPv4){pkttest.TTL(ttl)}))
	}
	check("DF outside", frame([]func(*layers.IPv4){pkttest.DF()}, nil))
	check("outer identification 0", frame([]func(*layers.IPv4){pkttest.ID(0)}, nil))
	check("a wrong outer checksum", pkttest.Corrupt(frame(nil, nil), packet.EthernetLen+10, 0xde, 0xad))
	check("a wrong inner checksum", pkttest.Corrupt(frame(nil, nil), packet.EthernetLen+packet.IPv4Len+10, 0xde, 0xad))
	check("padding", append(frame(nil, nil), make([]byte, 20)...))
	// A frame that ends inside the inner packet; its identification is there.
	cut := frame(nil, nil)
	check("cut off", cut[:len(cut)-10])
}

// popped is what a pod gets of a frame from the tunnel, as a node forwards it.
func popped(f []byte) string {
	var out encap.Outer
	if r := encap.PopIPIP(f, len(f), &out); r != drop.None {
		return "dropped"
	}
	inner := append([]byte(nil), f[out.InnerOffset:out.End]...)
	h := packet.IPv4(inner)
	tos, r := encap.DecapECN(out.TOS, h.TOS())
	var info packet.Info
	whole := append(make([]byte, packet.EthernetLen), inner...)
	binary.BigEndian.PutUint16(whole[12:], packet.EtherTypeIPv4)
	if r != drop.None || packet.Parse(whole, len(whole), &info) != drop.None || h.TTL() <= 1 {
		return "dropped"
	}
	inner[1] = tos
	h.SetTTL(h.TTL() - 1)
	binary.BigEndian.PutUint16(inner[10:], 0)
	binary.BigEndian.PutUint16(inner[10:], packet.Checksum(inner[:packet.IPv4Len], 0))
	return string(inner)
}
