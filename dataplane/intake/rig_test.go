package intake

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/dataplane/xsk"
	"culvert/internal/testnet"

	"golang.org/x/sys/unix"
)

// rig is a node with an intake, and pods behind veths:
//
//	pod 0 eth0 ═ node port 0 ─┐
//	pod 1 eth0 ═ node port 1 ─┴ intake ─ queue 0, queue 1, …
type rig struct {
	t      testing.TB
	node   *testnet.NS
	pools  []*frame.Pool
	owners []frame.Owner
	in     *Intake
	pods   []*pod
}

const ringSize = 1024

type pod struct {
	ns     *testnet.NS
	name   string // of its veth on the node
	mac    [6]byte
	attach *Attachment
	sock   int // a packet socket in it, with virtio_net_hdr
}

func newRig(t testing.TB, workers int) *rig {
	t.Helper()
	return newRigOf(t, workers, 4096, true)
}

func newRigOf(t testing.TB, workers, chunks int, checked bool) *rig {
	t.Helper()
	r := &rig{t: t, node: testnet.NewNS(t)}
	r.node.Sysctl(t, "net.ipv6.conf.default.disable_ipv6", "1")
	cfg := Config{Workers: workers, RingSize: ringSize, Prefix: "cvxi"}
	for range workers {
		pool, err := frame.NewPool(chunks, 4096, checked)
		if err != nil {
			t.Fatal(err)
		}
		r.pools = append(r.pools, pool)
		cfg.Umems = append(cfg.Umems, xsk.NewUmem(pool))
	}
	cfg.Pools = r.pools
	r.node.Do(t, func() {
		var err error
		if r.in, err = New(cfg); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(r.close)
	for w, pool := range r.pools {
		r.owners = append(r.owners, pool.NewOwner())
		if err := r.in.Queue(w).Start(r.owners[w], ringSize); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// close closes the intake and accounts for every chunk.
func (r *rig) close() {
	r.t.Helper()
	r.node.Do(r.t, func() {
		if err := r.in.Close(); err != nil {
			r.t.Error(err)
		}
	})
	for w, pool := range r.pools {
		if w < len(r.owners) {
			pool.Reclaim(r.owners[w])
		}
		if free := pool.FreeChunks(); free != pool.Chunks() {
			r.t.Errorf("worker %d: %d of %d chunks are free at the end; the worker holds %d",
				w, free, pool.Chunks(), pool.Held(frame.OwnerWorker))
		}
		if err := pool.Close(); err != nil {
			r.t.Error(err)
		}
	}
}

// addVeth makes a pod and its veth.
func (r *rig) addVeth(opts ...testnet.VethOption) *pod {
	t := r.t
	t.Helper()
	p := &pod{ns: testnet.NewNS(t), name: testnet.Name("p")}
	p.ns.Sysctl(t, "net.ipv6.conf.default.disable_ipv6", "1")
	testnet.Veth(t, p.ns, "eth0", r.node, p.name, opts...)
	copy(p.mac[:], p.ns.Attrs(t, "eth0").HardwareAddr)
	p.sock = packetSocket(t, p.ns, "eth0", 0)
	r.pods = append(r.pods, p)
	return p
}

// addPod makes a pod and attaches it as port 100 + its number.
func (r *rig) addPod(opts ...testnet.VethOption) *pod {
	r.t.Helper()
	p := r.addVeth(opts...)
	index := uint16(100 + len(r.pods) - 1)
	r.node.Do(r.t, func() {
		var err error
		if p.attach, err = r.in.AttachPod(ifindex(r.t, p.name), p.name, index, p.mac); err != nil {
			r.t.Fatal(err)
		}
	})
	return p
}

// packetSocket is a packet socket with a virtio_net_hdr in a namespace, bound to a
// device and a protocol, 0 to send only.
func packetSocket(t testing.TB, ns *testnet.NS, name string, protocol uint16) (fd int) {
	t.Helper()
	ns.Do(t, func() {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
		}
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex(t, name), Protocol: protocol<<8 | protocol>>8})
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd
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

// segment is a frame of TCP over IPv4 from src, with a virtio_net_hdr in front: of
// flow and number, which are its source port and sequence number, with n bytes of
// payload. With a size it is to be cut to that. Its checksum is partial.
func segment(src [6]byte, flow uint16, number uint32, n, size int) []byte {
	b := make([]byte, 10+54+n)
	b[0] = 1
	binary.NativeEndian.PutUint16(b[6:], 34)
	binary.NativeEndian.PutUint16(b[8:], 16)
	if size > 0 {
		b[1] = 1
		binary.NativeEndian.PutUint16(b[2:], 54)
		binary.NativeEndian.PutUint16(b[4:], uint16(size))
	}
	f := b[10:]
	copy(f, []byte{2, 0, 0, 0, 0, 9})
	copy(f[6:], src[:])
	copy(f[12:], []byte{8, 0, 0x45})
	if n+40 < 1<<16 {
		binary.BigEndian.PutUint16(f[16:], uint16(n+40))
	}
	copy(f[22:], []byte{64, 6})
	copy(f[26:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(f[24:], ^sum(f[14:34]))
	binary.BigEndian.PutUint16(f[34:], flow)
	binary.BigEndian.PutUint16(f[36:], 80)
	binary.BigEndian.PutUint32(f[38:], number)
	f[46], f[47] = 0x50, 0x10
	for i := range n {
		f[54+i] = byte(i*7 + i>>8)
	}
	return b
}

// datagram is a frame of UDP over IPv4 or IPv6 with a virtio_net_hdr in front, to an
// address and port.
func datagram(src [6]byte, to net.IP, port uint16, n int) []byte {
	ip := make([]byte, 20)
	kind := []byte{8, 0}
	if v4 := to.To4(); v4 != nil {
		ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(ip[2:], uint16(28+n))
		copy(ip[12:], []byte{10, 0, 0, 1})
		copy(ip[16:], v4)
		binary.BigEndian.PutUint16(ip[10:], ^sum(ip))
	} else {
		kind = []byte{0x86, 0xdd}
		ip = make([]byte, 40)
		ip[0], ip[6], ip[7] = 0x60, unix.IPPROTO_UDP, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(8+n))
		copy(ip[8:], net.ParseIP("fd00::1"))
		copy(ip[24:], to)
	}
	udp := make([]byte, 8+n)
	binary.BigEndian.PutUint16(udp[0:], 4444)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+n))
	b := append(make([]byte, 10), 2, 0, 0, 0, 0, 9)
	b = append(append(b, src[:]...), kind...)
	return append(append(b, ip...), udp...)
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

// send sends a frame that has a virtio_net_hdr in front.
func (p *pod) send(t testing.TB, b []byte) {
	t.Helper()
	if _, err := unix.Write(p.sock, b); err != nil {
		t.Fatalf("sending %d bytes: %v", len(b), err)
	}
}

// received is what a queue handed out.
type received struct {
	frame.Frame
	tag    frame.Tag
	tagged bool
	bytes  []byte
}

// receive takes what a queue hands out in one call, and frees it.
func (r *rig) receive(w int) (list []received) {
	var b frame.Burst
	pool := r.pools[w]
	r.in.Queue(w).Recv(&b)
	for i := range b.N {
		f := &b.Frames[i]
		g := received{Frame: *f, bytes: bytes.Clone(pool.Bytes(f.Addr, f.Len))}
		for _, d := range f.Rest {
			g.bytes = append(g.bytes, pool.Bytes(d.Addr, d.Len)...)
		}
		g.tag, g.tagged = frame.ReadTag(g.bytes)
		list = append(list, g)
		pool.FreeFrame(f)
	}
	return list
}

// expect receives until n frames have come, from worker 0, and looks whether more come.
func (r *rig) expect(n int) (list []received) {
	r.t.Helper()
	for end := time.Now().Add(2 * time.Second); len(list) < n && time.Now().Before(end); {
		list = append(list, r.receive(0)...)
	}
	list = append(list, r.receive(0)...)
	if len(list) != n {
		r.t.Fatalf("%d frames came, want %d", len(list), n)
	}
	return list
}

// stats are those of all queues, and what was refused to pods.
func (r *rig) stats() (s frame.DeviceStats) {
	for _, p := range r.pods {
		if p.attach != nil {
			p.attach.Stats(&s)
		}
	}
	for w := range r.pools {
		r.in.Queue(w).Stats(&s)
	}
	return s
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
