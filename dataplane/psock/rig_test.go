package psock

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/internal/testnet"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rig is a veth pair, a Sender and a pool at its near end:
//
//	node port ═ eth0 pod
type rig struct {
	t         testing.TB
	node, pod *testnet.NS
	port      string // on the node
	pool      *frame.Pool
	send      *Sender
}

func newRig(t testing.TB, opts ...testnet.VethOption) *rig {
	t.Helper()
	r := &rig{t: t, node: testnet.NewNS(t), pod: testnet.NewNS(t), port: testnet.Name("p")}
	for _, ns := range []*testnet.NS{r.node, r.pod} { // nothing but the test's frames
		ns.Sysctl(t, "net.ipv6.conf.default.disable_ipv6", "1")
	}
	testnet.Veth(t, r.node, r.port, r.pod, "eth0", opts...)
	r.pool = newPool(t, 4096)
	r.send = r.openSender(r.node, r.port)
	return r
}

// newPool is a checked pool, of which every chunk must be free at the end.
func newPool(t testing.TB, chunks int) *frame.Pool {
	t.Helper()
	pool, err := frame.NewPool(chunks, 4096, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if free := pool.FreeChunks(); free != pool.Chunks() {
			t.Errorf("%d of %d chunks are free at the end; the worker holds %d", free, pool.Chunks(), pool.Held(frame.OwnerWorker))
		}
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return pool
}

func (r *rig) openSender(ns *testnet.NS, name string) (s *Sender) {
	r.t.Helper()
	ns.Do(r.t, func() {
		var err error
		if s, err = OpenSender(name, ifindex(r.t, name), r.pool); err != nil {
			r.t.Fatal(err)
		}
	})
	r.t.Cleanup(func() { s.Close() })
	return s
}

// openReceiver opens a started Receiver at a device, which is closed and
// reclaimed at the end.
func (r *rig) openReceiver(ns *testnet.NS, name string, pool *frame.Pool) (recv *Receiver) {
	r.t.Helper()
	ns.Do(r.t, func() {
		var err error
		if recv, err = OpenReceiver(name, ifindex(r.t, name), pool); err != nil {
			r.t.Fatal(err)
		}
	})
	owner := pool.NewOwner()
	recv.Start(owner)
	r.t.Cleanup(func() {
		if err := recv.Close(); err != nil {
			r.t.Error(err)
		}
		pool.Reclaim(owner)
	})
	return recv
}

// allowBig raises what a device takes whole.
func allowBig(t testing.TB, ns *testnet.NS, name string, bytes int) {
	t.Helper()
	ns.Do(t, func() {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetGSOMaxSize(l, bytes)
		}
		if err == nil {
			err = netlink.LinkSetGSOIPv4MaxSize(l, bytes)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}

// ifindex finds a device of the calling thread's namespace.
func ifindex(t testing.TB, name string) int {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatalf("finding %s: %v", name, err)
	}
	return i.Index
}

// frameOf makes a frame of the worker's of b, with first bytes in the first
// chunk and rest bytes in each further one. Its Rest is from the heap.
func (r *rig) frameOf(b []byte, first, rest int) frame.Frame {
	r.t.Helper()
	put := func(n int) frame.Desc {
		addr, ok := r.pool.Alloc()
		if !ok {
			r.t.Fatal("the pool is empty")
		}
		n = min(n, len(b))
		copy(r.pool.Bytes(addr, uint32(n)), b)
		b = b[n:]
		return frame.Desc{Addr: addr, Len: uint32(n)}
	}
	total := uint32(len(b))
	d := put(first)
	f := frame.Frame{Addr: d.Addr, Len: d.Len, Total: total}
	for len(b) > 0 {
		f.Rest = append(f.Rest, put(rest))
	}
	return f
}

// bytesOf are a frame's.
func bytesOf(p *frame.Pool, f *frame.Frame) []byte {
	b := bytes.Clone(p.Bytes(f.Addr, f.Len))
	for i := range f.Rest {
		b = append(b, p.Bytes(f.Rest[i].Addr, f.Rest[i].Len)...)
	}
	return b
}

// packet is a frame of n bytes of payload behind Ethernet, IP and layer 4, whose
// checksum holds the pseudo-header's sum: what a GSO frame is made of.
func packet(v6 bool, proto byte, n int) []byte {
	l4 := map[byte]int{unix.IPPROTO_TCP: 20, unix.IPPROTO_UDP: 8}[proto]
	ip := make([]byte, 20)
	if v6 {
		ip = make([]byte, 40)
		ip[0], ip[6], ip[7] = 0x60, proto, 64
		ip[8], ip[24] = 0xfd, 0xfd
		binary.BigEndian.PutUint16(ip[4:], uint16(l4+n))
		ip[23], ip[39] = 1, 2
	} else {
		ip[0], ip[8], ip[9] = 0x45, 64, proto
		if total := 20 + l4 + n; total < 1<<16 { // 0 stands for more
			binary.BigEndian.PutUint16(ip[2:], uint16(total))
		}
		copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
		binary.BigEndian.PutUint16(ip[10:], ^sum(ip))
	}
	h := make([]byte, l4)
	binary.BigEndian.PutUint16(h[0:], 1234)
	binary.BigEndian.PutUint16(h[2:], 5678)
	if proto == unix.IPPROTO_TCP {
		h[12], h[13] = 0x50, 0x10
	} else {
		binary.BigEndian.PutUint16(h[4:], uint16(l4+n))
	}
	b := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}, ip...)
	if v6 {
		b[12], b[13] = 0x86, 0xdd
	}
	b = append(b, h...)
	for i := range n {
		b = append(b, byte(i*7+i>>8))
	}
	return b
}

func sum(b []byte) uint16 {
	s := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// plain is a packet socket with a virtio_net_hdr as any program has one, to see
// frames by other means than ours.
type plain int

func openPlain(t testing.TB, ns *testnet.NS, name string) (s plain) {
	t.Helper()
	ns.Do(t, func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex(t, name), Protocol: 0x0300})
		}
		if err != nil {
			t.Fatal(err)
		}
		s = plain(fd)
	})
	t.Cleanup(func() { unix.Close(int(s)) })
	return s
}

// next is the header and the bytes of the next frame, or nil after a while.
func (s plain) next(t testing.TB) (header, b []byte) {
	t.Helper()
	buf := make([]byte, 1<<19)
	fds := []unix.PollFd{{Fd: int32(s), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 1000); n == 0 || err != nil {
		return nil, nil
	}
	n, _, err := unix.Recvfrom(int(s), buf, 0)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:10], buf[10:n]
}

// waitUntil polls cond for up to five seconds.
func waitUntil(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("waited in vain until %s", what)
}
