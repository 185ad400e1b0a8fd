//go:build vm

package e2e

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// These tests run inside a virtual machine (make test-vm), whose kernel has IPIP:
// a node of ours and a node of the kernel's, set up as Calico does it.

// ipipMTU is the pods' on an underlay of 1500 bytes.
const ipipMTU = 1480

// upIPIP makes node-a ours and node-b the kernel's, joined by IPIP.
func upIPIP(t *testing.T, opts lab.Options) (c *cluster, ours, kernel *lab.Node) {
	t.Helper()
	t.Setenv("CULVERT_NATIVE_ENCAP", "ipip")
	opts.Peer = lab.Calico
	c = up(t, opts)
	ours, kernel = c.Nodes[0], c.Nodes[1]
	toIPIP(t, kernel, c.Nodes)
	if s := culvertJSON[api.Status](t, ours, "status"); s.Encap != "ipip" || s.MTU != ipipMTU {
		t.Fatalf("the agent has encapsulation %q and pod MTU %d", s.Encap, s.MTU)
	}
	return c, ours, kernel
}

// toIPIP gives a kernel node Calico's IPIP in place of its VXLAN: the module's
// own device tunl0 (felix/dataplane/linux/ipip_mgr.go), and a route to each
// block as BIRD has it (confd/etc/calico/confd/templates, "krt_tunnel").
func toIPIP(t *testing.T, n *lab.Node, all []*lab.Node) {
	t.Helper()
	must(t, n.Netns, "ip", "link", "del", "vxlan.calico")
	must(t, n.Netns, "ip", "link", "set", "tunl0", "mtu", fmt.Sprint(ipipMTU), "up")
	must(t, n.Netns, "ip", "addr", "add", n.PodCIDR.Addr().String()+"/32", "dev", "tunl0")
	for _, peer := range all {
		if peer != n {
			must(t, n.Netns, "ip", "route", "replace", peer.PodCIDR.String(), "via", peer.Addr.String(), "dev", "tunl0", "onlink", "proto", "bird")
		}
	}
	for _, p := range n.Pods {
		setPodMTU(t, n, p, ipipMTU)
	}
}

// setPodMTU sets that of a pod, of a kernel's at both ends.
func setPodMTU(t *testing.T, n *lab.Node, p *lab.Pod, mtu int) {
	t.Helper()
	must(t, p.Netns, "ip", "link", "set", "eth0", "mtu", fmt.Sprint(mtu))
	if n.Kind == lab.Culvert {
		return
	}
	dev := strings.Fields(must(t, n.Netns, "ip", "-o", "route", "get", p.Addr.String()))
	for i, word := range dev {
		if word == "dev" {
			must(t, n.Netns, "ip", "link", "set", dev[i+1], "mtu", fmt.Sprint(mtu))
		}
	}
}

// Pods of both kinds and a kernel node's pods exchange everything.
func TestVMIPIPTraffic(t *testing.T) {
	c, ours, kernel := upIPIP(t, lab.Options{Interfaces: []string{"veth", "tap"}})
	for _, a := range ours.Pods {
		t.Run(a.Interface, func(t *testing.T) {
			within := &cluster{c.Lab, t}
			within.traffic(a, kernel.Pods[0], ipipMTU)
		})
	}
	t.Run("node", func(t *testing.T) { // from its tunnel address
		must(t, kernel.Netns, "ping", "-n", "-c", "2", "-i", "0.1", "-W", "5", ours.Pods[0].Addr.String())
	})
	var kinds []string
	for _, r := range culvertJSON[[]api.Route](t, ours, "route") {
		if r.Dst == kernel.PodCIDR.String() {
			kinds = append(kinds, fmt.Sprint(r.Kind, " via ", r.Via))
		}
	}
	if want := fmt.Sprintf("[ipip via %s]", kernel.Addr); fmt.Sprint(kinds) != want {
		t.Errorf("the route to the kernel's pods is %v, want %v", kinds, want)
	}
}

// With native XDP on the uplink, and with zero copy on the machine's NICs, it is the same.
func TestVMIPIPModes(t *testing.T) {
	t.Run("native", func(t *testing.T) {
		c, ours, kernel := upIPIP(t, lab.Options{Pods: 1, Config: "xdp: {mode: native}\n"})
		c.traffic(ours.Pods[0], kernel.Pods[0], ipipMTU)
	})
	t.Run("zero copy", func(t *testing.T) {
		t.Setenv("CULVERT_XDP_ZEROCOPY", "on")
		prepareNICs(t)
		c, ours, kernel := upIPIP(t, lab.Options{Pods: 1, NICs: nics()})
		if p := portNamed(t, ours, nic0); !p.XDP.ZeroCopy {
			t.Errorf("the uplink is %+v", p)
		}
		c.traffic(ours.Pods[0], kernel.Pods[0], ipipMTU)
	})
}

// Every hop of a route answers: the nodes when the TTL ends there, the pod when
// nobody listens.
func TestVMIPIPErrors(t *testing.T) {
	_, ours, kernel := upIPIP(t, lab.Options{Pods: 1})
	a, b := ours.Pods[0], kernel.Pods[0]
	for _, tt := range []struct {
		from, to *lab.Pod
		nodes    []*lab.Node
	}{{a, b, []*lab.Node{ours, kernel}}, {b, a, []*lab.Node{kernel, ours}}} {
		var got, want []string
		for line := range strings.Lines(must(t, tt.from.Netns, "traceroute", "-n", "-q", "1", "-w", "5", "-m", "5", tt.to.Addr.String())) {
			if f := strings.Fields(line); len(f) > 1 && f[0] != "traceroute" {
				got = append(got, f[1])
			}
		}
		for i, n := range tt.nodes {
			// A node answers from an address of its own; from which, the order of
			// its devices decides where the one it answers through has none.
			addr := n.Addr
			if i < len(got) && got[i] == n.PodCIDR.Addr().String() {
				addr = n.PodCIDR.Addr()
			}
			want = append(want, addr.String())
		}
		if want = append(want, tt.to.Addr.String()); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("from %s to %s: %v, want %v", tt.from.Name, tt.to.Name, got, want)
		}
		if err := knock(tt.from.Netns, tt.to.Addr.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a closed port of %s: %v", tt.to.Name, err)
		}
	}
}

// knock sends a datagram to a port where nobody is, and returns the error that
// the ICMP error became.
func knock(ns, addr string) error {
	return inside(ns, func() error {
		conn, err := net.Dial("udp4", addr+":9")
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("knock")); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1))
		return err
	})
}

// A packet that does not fit and may not be cut is answered with the tunnel's
// MTU by both kinds of node, and TCP finds its way through the narrowing.
func TestVMIPIPPathMTU(t *testing.T) {
	_, ours, kernel := upIPIP(t, lab.Options{Pods: 1})
	a, b := ours.Pods[0], kernel.Pods[0]
	setPodMTU(t, ours, a, 1500)
	setPodMTU(t, kernel, b, 1500)
	for _, way := range []struct{ from, to *lab.Pod }{{a, b}, {b, a}} {
		out, err := netns(way.from.Netns, "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", "1453", way.to.Addr.String())
		if err == nil || !strings.Contains(out, "mtu = 1480") {
			t.Errorf("ping of 1481 bytes from %s: %v\n%s", way.from.Name, err, out)
		}
		must(t, way.from.Netns, "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", "1452", way.to.Addr.String())
		if out := must(t, way.from.Netns, "ip", "route", "get", way.to.Addr.String()); !strings.Contains(out, "mtu 1480") {
			t.Errorf("%s did not learn the path MTU: %s", way.from.Name, out)
		}
		must(t, way.from.Netns, "ip", "route", "flush", "cache")
		transfer(t, way.from.Netns, way.to.Netns, way.to.Addr.String(), 1, 1<<20)
	}
}
