package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
)

// mapPorts gives a pod a new container with port mappings.
func (c *cluster) mapPorts(n *lab.Node, p *lab.Pod, ports ...lab.PortMapping) {
	c.t.Helper()
	if err := c.MapPorts(context.Background(), n, p, ports...); err != nil {
		c.t.Fatal(err)
	}
}

// tellWho serves in a namespace: who connects is told how the server sees him, and
// then gets back what he sends.
func tellWho(t *testing.T, ns string, port int) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	if err := inside(ns, func() (err error) {
		if l, err = net.Listen("tcp", fmt.Sprint(":", port)); err == nil {
			u, err = net.ListenPacket("udp", fmt.Sprint(":", port))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintln(c, c.RemoteAddr())
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(buf[:n], from)
		}
	}()
}

// askWho is how tellWho's server sees a client in a namespace, who also sends it size bytes
// and wants them back.
func askWho(ns, addr string, size int) (netip.Addr, error) {
	c, err := dial(ns, addr)
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return netip.Addr{}, err
	}
	go func() { _, _ = c.Write(make([]byte, size)); _ = c.(*net.TCPConn).CloseWrite() }()
	all, err := io.ReadAll(c)
	if err != nil {
		return netip.Addr{}, err
	}
	line, rest, _ := strings.Cut(string(all), "\n")
	if len(rest) != size {
		return netip.Addr{}, fmt.Errorf("%d bytes of %d come back", len(rest), size)
	}
	who, err := netip.ParseAddrPort(line)
	return who.Addr().Unmap(), err
}

// A mapped port of the node leads to the pod: from the world, from a host on the nodes' link,
// from other nodes and their pods, from pods of the node and from the pod itself; TCP in bulk
// and UDP; also after culvertd was killed. The rest of the node's ports are its own, and
// so is that one once the pod has gone.
func TestMappedPorts(t *testing.T) {
	for _, o := range []lab.Options{{}, {Interfaces: []string{"tap"}}, {Encap: "none"}, {Peer: lab.Flannel}} {
		t.Run(fmt.Sprintf("%s%s%s", o.Peer, o.Encap, strings.Join(o.Interfaces, "")), func(t *testing.T) {
			o.Bridge = true
			c := up(t, o)
			w := outsideOf(t, c)
			node, peer := c.Nodes[0], c.Nodes[1]
			pod, other := node.Pods[0], node.Pods[1]
			c.mapPorts(node, pod, lab.PortMapping{HostPort: 8080, ContainerPort: 5201, Protocol: "tcp"},
				lab.PortMapping{HostPort: 8080, ContainerPort: 5201, Protocol: "udp"},
				lab.PortMapping{HostPort: 8081, ContainerPort: 1, Protocol: "udp", HostIP: "0.0.0.0"})
			tellWho(t, pod.Netns, 5201)
			tellWho(t, node.Netns, 8090)
			at := net.JoinHostPort(node.Addr.String(), "8080")
			world := netip.MustParseAddr(worldAddr)
			reach := func() {
				t.Helper()
				for _, from := range []struct {
					ns   string
					seen netip.Addr
				}{
					{w.host, world}, {w.router, netip.MustParseAddr(w.lan)}, {peer.Netns, peer.Addr}, {peer.Pods[0].Netns, peer.Pods[0].Addr},
					{other.Netns, other.Addr}, {pod.Netns, node.Addr},
				} {
					if got, err := askWho(from.ns, at, bulk/16); err != nil || got != from.seen {
						t.Errorf("from %s: the pod sees %s, want %s: %v", from.ns, got, from.seen, err)
					}
					if err := inside(from.ns, func() error { return udpEcho(at, 1200) }); err != nil {
						t.Errorf("UDP from %s: %v", from.ns, err)
					}
				}
			}
			reach()
			if err := inside(w.host, func() error { return udpEcho(net.JoinHostPort(node.Addr.String(), "8081"), 10) }); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("a port that the pod does not listen at: %v", err)
			}
			if got, err := askWho(w.host, net.JoinHostPort(node.Addr.String(), "8090"), 1000); err != nil || got != world {
				t.Errorf("a server on the node sees %s: %v", got, err)
			}
			if err := c.StopAgent(node, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if err := c.StartAgent(context.Background(), node); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the mapped port", func() error { // the uplinks' programs know of it a moment after the agent answers
				_, err := askWho(w.host, at, 1)
				return err
			})
			reach()
			if out := culvert(t, node, "flow", "--dst", node.Addr.String()); !strings.Contains(out, "src="+pod.Addr.String()) {
				t.Errorf("culvert flow does not show the translation:\n%s", out)
			}
			c.mapPorts(node, pod)
			tellWho(t, node.Netns, 8080)
			if got, err := askWho(w.host, at, 1000); err != nil || got != world {
				t.Errorf("a server on the node at a port that was mapped sees %s: %v", got, err)
			}
		})
	}
}

// udpEcho sends a datagram and wants it back.
func udpEcho(addr string, size int) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, size+1)
	for range 5 {
		if _, err = c.Write(buf[:size]); err != nil {
			return err
		}
		if err = c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		var n int
		if n, err = c.Read(buf); err == nil && n != size {
			return fmt.Errorf("%d bytes of %d come back", n, size)
		}
		if err == nil || strings.Contains(err.Error(), "refused") {
			return err
		}
	}
	return err
}

// The same over IPv6: a mapped port of the node's IPv6 address.
func TestMappedPorts6(t *testing.T) {
	c := up(t, lab.Options{Bridge: true, Family: lab.Dual, Underlay: lab.IPv6})
	w := outsideOf(t, c)
	node, peer := c.Nodes[0], c.Nodes[1]
	pod, other := node.Pods[0], node.Pods[1]
	c.mapPorts(node, pod, lab.PortMapping{HostPort: 8080, ContainerPort: 5201, Protocol: "tcp"},
		lab.PortMapping{HostPort: 8080, ContainerPort: 5201, Protocol: "udp", HostIP: "::"})
	tellWho(t, pod.Netns, 5201)
	at := net.JoinHostPort(node.Addr.String(), "8080")
	for _, from := range []struct {
		ns   string
		seen netip.Addr
	}{
		{w.router, netip.MustParseAddr("fd50::fe")}, {peer.Netns, peer.Addr}, {peer.Pods[0].Netns, peer.Pods[0].Addr6()},
		{other.Netns, other.Addr6()}, {pod.Netns, node.Addr},
	} {
		if got, err := askWho(from.ns, at, bulk/16); err != nil || got != from.seen {
			t.Errorf("from %s: the pod sees %s, want %s: %v", from.ns, got, from.seen, err)
		}
		if err := inside(from.ns, func() error { return udpEcho(at, 1200) }); err != nil {
			t.Errorf("UDP from %s: %v", from.ns, err)
		}
	}
}
