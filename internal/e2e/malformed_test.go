package e2e

import (
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"culvert/ctrl/api"
	"culvert/internal/lab"
	kit "culvert/internal/pkttest"
)

// nic0 is the name of every node's NIC in the lab.
const nic0 = "eth0"

// rawSend sends frames as they are on a device in a namespace.
func rawSend(t *testing.T, ns, dev string, frames ...[]byte) {
	t.Helper()
	err := inside(ns, func() error {
		ifi, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrLinklayer{Ifindex: ifi.Index}
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, to); err != nil && err != unix.EINVAL {
				return fmt.Errorf("sending %d bytes: %w", len(f), err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// devMAC is a device's address in a namespace.
func devMAC(t *testing.T, ns, dev string) (mac string) {
	t.Helper()
	if err := inside(ns, func() error {
		ifi, err := net.InterfaceByName(dev)
		if err == nil {
			mac = ifi.HardwareAddr.String()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return mac
}

// Garbage from the wire and from a pod is counted under its reason, and nothing
// else happens.
func TestMalformedInputIsCounted(t *testing.T) {
	c := up(t, lab.Options{Peer: lab.Flannel})
	n, k := c.Nodes[0], c.Nodes[1]
	a, b := n.Pods[0], k.Pods[0]
	must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "2", b.Addr.String())
	nic, wire := devMAC(t, n.Netns, nic0), devMAC(t, k.Netns, nic0)
	vtep := culvertJSON[api.Status](t, n, "status").VTEP.MAC
	outer := func(opts ...kit.Layer) []byte {
		return kit.Frame(t, append([]kit.Layer{kit.Eth(wire, nic), kit.IP4(k.Addr.String(), n.Addr.String()), kit.UDP(40000, c.Port)}, opts...)...)
	}
	inner := func(dst string, ls ...kit.Layer) []kit.Layer {
		return append([]kit.Layer{kit.VXLANHeader(c.VNI), kit.Eth(k.VTEPMAC, dst)}, ls...)
	}
	good := outer(inner(vtep, kit.IP4(b.Addr.String(), a.Addr.String()), kit.UDP(1, 2), kit.Payload(20))...)
	cases := []struct {
		reason string
		frame  []byte
	}{
		{"vxlan_unknown_vni", outer(kit.VXLANHeader(c.VNI+1), kit.Eth(k.VTEPMAC, vtep), kit.IP4(b.Addr.String(), a.Addr.String()), kit.UDP(1, 2), kit.Payload(20))},
		{"vxlan_flags", kit.Corrupt(outer(inner(vtep, kit.IP4(b.Addr.String(), a.Addr.String()), kit.UDP(1, 2), kit.Payload(20))...), 42, 0x48)},
		{"vxlan_flags", kit.Corrupt(outer(inner(vtep, kit.IP4(b.Addr.String(), a.Addr.String()), kit.UDP(1, 2), kit.Payload(20))...), 49, 0x01)},
		{"vxlan_inner_mac", outer(inner("02:00:00:00:00:99", kit.IP4(b.Addr.String(), a.Addr.String()), kit.UDP(1, 2), kit.Payload(20))...)},
		{"tunnel_truncated", outer(kit.Payload(9))},
		{"ip_version", outer(kit.VXLANHeader(c.VNI), kit.EthType(k.VTEPMAC, vtep, 0x0800), kit.Payload(60))},
		{"ipv4_checksum", kit.Corrupt(bytesOf(good), 14+20+8+8+14+10, 0xde, 0xad)},
		{"tunnel_source_mismatch", outer(inner(vtep, kit.IP4("10.99.0.1", a.Addr.String()), kit.UDP(1, 2), kit.Payload(20))...)},
	}
	for _, tt := range cases {
		before := dropped(t, n, tt.reason)
		frames := make([][]byte, 50)
		for i := range frames {
			frames[i] = tt.frame
		}
		rawSend(t, k.Netns, nic0, frames...)
		eventually(t, tt.reason, func() error {
			if got := dropped(t, n, tt.reason) - before; got != 50 {
				return fmt.Errorf("%d counted of 50", got)
			}
			return nil
		})
	}
	for cut := 15; cut < len(good); cut++ {
		rawSend(t, k.Netns, nic0, good[:cut])
	}
	// From a pod: floods of ARP and of ICMP for the gateway.
	pod := devMAC(t, a.Netns, "eth0")
	flood := func(f []byte) {
		frames := make([][]byte, 20000)
		for i := range frames {
			frames[i] = f
		}
		rawSend(t, a.Netns, "eth0", frames...)
	}
	flood(kit.Frame(t, kit.Eth(pod, "ff:ff:ff:ff:ff:ff"), kit.ARPRequest(pod, a.Addr.String(), "169.254.1.1")))
	flood(kit.Frame(t, kit.Eth(pod, "ee:ee:ee:ee:ee:ee"), kit.IP4(a.Addr.String(), "169.254.1.1"), kit.ICMP4(8, 0, 9, 9), kit.Payload(56)))
	before := dropped(t, n, "spoofed_source")
	rawSend(t, a.Netns, "eth0", kit.Frame(t, kit.Eth(pod, "ee:ee:ee:ee:ee:ee"), kit.IP4("10.244.7.7", b.Addr.String()), kit.UDP(1, 2)))
	eventually(t, "spoofed_source", func() error {
		if dropped(t, n, "spoofed_source") == before {
			return fmt.Errorf("not counted")
		}
		return nil
	})
	must(t, a.Netns, "ping", "-n", "-c", "3", "-i", "0.05", "-W", "2", b.Addr.String())
	if s := culvertJSON[api.Status](t, n, "status"); !s.Ready {
		t.Errorf("the agent is not ready any more: %v", s.Reasons)
	}
}

func bytesOf(f []byte) []byte { return append([]byte(nil), f...) }
