package outer

import (
	"bytes"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/encap"
	"culvert/internal/drop"
	kit "culvert/internal/pkttest"
	"culvert/internal/testnet"
)

// heard is a Handler that keeps what it is told.
type heard struct {
	mu        sync.Mutex
	errors    []Error
	datagrams []Datagram
	lost      uint64
}

func (h *heard) Error(e *Error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errors = append(h.errors, *e)
}

func (h *heard) Datagram(d *Datagram) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.datagrams = append(h.datagrams, Datagram{Peer: d.Peer, Frame: append([]byte(nil), d.Frame...), Fragment: d.Fragment})
}

func (h *heard) Lost(n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost += n
}

func (h *heard) count() (errors, datagrams int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.errors), len(h.datagrams)
}

// Real packets between two namespaces, in both families: what the kernel puts together
// arrives as one packet with its outer header, what came whole does not; errors about
// our packets are heard, those about others are not; and after Close nothing is.
func TestListen(t *testing.T) {
	for _, f := range []struct {
		name, own, peer string
		local           Local
	}{
		{"IPv4", "192.168.0.1/24", "192.168.0.2/24", local4},
		{"IPv6", "fd00::1/64", "fd00::2/64", local6},
	} {
		t.Run(f.name, func(t *testing.T) {
			node, other := testnet.NewNS(t), testnet.NewNS(t)
			testnet.Veth(t, node, "eth0", other, "eth0")
			node.AddAddr(t, "eth0", f.own)
			other.AddAddr(t, "eth0", f.peer)
			h := &heard{}
			var ear *Listener
			node.Do(t, func() {
				var err error
				if ear, err = Listen(f.local, h); err != nil {
					t.Fatal(err)
				}
			})
			defer ear.Close()
			peer := netip.MustParsePrefix(f.peer).Addr()
			payload := kit.Pattern(3000)
			other.Do(t, func() { sendDatagrams(t, peer, f.local, payload) })
			wait(t, func() bool { _, n := h.count(); return n == 2 })
			for i, size := range []int{3000, 1500} {
				d := h.datagrams[i]
				var o encap.Outer
				if r := encap.Classify(d.Frame, len(d.Frame), &o); r != drop.None {
					t.Fatalf("%d bytes: %v", size, r)
				}
				if d.Peer != peer || o.Src.Netip() != peer || o.Dst.Netip() != f.local.Addr || o.SrcPort != 40000 || o.DstPort != f.local.Port {
					t.Errorf("%+v from %s", o, d.Peer)
				}
				if got := d.Frame[o.Payload:o.End]; string(got) != string(payload[:size]) || d.Fragment < 1400 || d.Fragment > 1500 || d.Hash() != 40000 {
					t.Errorf("%d bytes, fragments of %d, hash %d", len(got), d.Fragment, d.Hash())
				}
			}
			other.Do(t, func() { sendErrors(t, f.local, peer) })
			wait(t, func() bool { n, _ := h.count(); return n == 1 })
			if e := h.errors[0]; e.Kind != TooBig || e.MTU != 1300 || e.Peer != peer || e.From != peer {
				t.Errorf("%+v", e)
			}
			node.Do(t, func() { // nothing is believed for the node's own routes
				if out, err := exec.Command("ip", "route", "get", peer.String()).CombinedOutput(); err != nil || bytes.Contains(out, []byte("mtu")) {
					t.Errorf("%v\n%s", err, out)
				}
			})
			if err := ear.Close(); err != nil {
				t.Error(err)
			}
			other.Do(t, func() { sendErrors(t, f.local, peer) })
			if errors, datagrams := h.count(); errors != 1 || datagrams != 2 {
				t.Errorf("%d errors and %d datagrams after all", errors, datagrams)
			}
		})
	}
	if _, err := Listen(Local{Addr: netip.MustParseAddr("192.0.2.1"), Port: 4789}, &heard{}); err == nil {
		t.Error("an address that is nobody's was listened on")
	}
}

func wait(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not arrive")
		}
	}
}

// sendDatagrams sends to VXLAN's port and to another one, whole and in fragments.
func sendDatagrams(t *testing.T, from netip.Addr, to Local, payload []byte) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 40000)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err == nil && from.Is4() {
		err = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
		})
	}
	for _, d := range []struct {
		size int
		port uint16
	}{{100, to.Port}, {3000, to.Port + 1}, {3000, to.Port}, {1500, to.Port}} {
		if err == nil {
			_, err = c.WriteToUDPAddrPort(payload[:d.size], netip.AddrPortFrom(to.Addr, d.port))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sendErrors sends an error about a packet of another node's, then one about ours.
func sendErrors(t *testing.T, to Local, peer netip.Addr) {
	t.Helper()
	network, mark := "ip4:icmp", "192.168.0.77"
	if !to.Addr.Is4() {
		network, mark = "ip6:ipv6-icmp", "fd00::77"
	}
	c, err := net.Dial(network, to.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, src := range []string{mark, to.Addr.String()} {
		var m []byte
		if to.Addr.Is4() {
			m = error4(t, 3, 4, 1300, sent(t, kit.IP4(src, peer.String()), 40000, to.Port, to.VNI)[:200])[20:]
		} else { // the kernel writes the checksum
			m = error6(2, 0, 1300, sent(t, kit.IP6(src, peer.String()), 40000, to.Port, to.VNI)[:200])
		}
		if _, err := c.Write(m); err != nil {
			t.Fatal(err)
		}
	}
}
