package mixed_test

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/dataplane/mixed"
	"culvert/dataplane/psock"
	"culvert/dataplane/xsk"
	"culvert/internal/testnet"

	"golang.org/x/sys/unix"
)

// rig is a mixed device at the node's end of a veth, and a packet socket in the pod
// that sees what arrives:
//
//	node port ═ eth0 pod
type rig struct {
	t         testing.TB
	node, pod *testnet.NS
	port      string
	pool      *frame.Pool
	dev       *mixed.Device
	peer      int
}

func newRig(t testing.TB) *rig {
	t.Helper()
	pool, err := frame.NewPool(2048, 4096, true)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, node: testnet.NewNS(t), pod: testnet.NewNS(t), port: testnet.Name("p"), pool: pool}
	for _, ns := range []*testnet.NS{r.node, r.pod} { // nothing but the test's frames
		ns.Sysctl(t, "net.ipv6.conf.default.disable_ipv6", "1")
	}
	testnet.Veth(t, r.node, r.port, r.pod, "eth0")
	r.pod.Do(t, func() {
		r.peer, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.SetsockoptInt(r.peer, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		}
		if err == nil {
			err = unix.Bind(r.peer, &unix.SockaddrLinklayer{Ifindex: ifindex(t, "eth0"), Protocol: 0x0300})
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	r.open()
	return r
}

// open opens the device, which is closed and accounted for at the end.
func (r *rig) open() {
	t := r.t
	t.Helper()
	r.node.Do(t, func() {
		index := ifindex(t, r.port)
		sock, err := xsk.NewUmem(r.pool).Open(xsk.SocketConfig{Ifindex: index, Ifname: r.port, RingSize: 256,
			ZeroCopy: xsk.ZeroCopyOff, SG: true})
		if err != nil {
			t.Fatal(err)
		}
		big, err := psock.OpenSender(r.port, index, r.pool)
		if err != nil {
			t.Fatal(err)
		}
		if r.dev, err = mixed.New(sock, big, r.pool, true); err != nil {
			t.Fatal(err)
		}
	})
	owner := r.pool.NewOwner()
	if err := r.dev.Start(owner, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(r.peer)
		if err := r.dev.Close(); err != nil {
			t.Error(err)
		}
		r.pool.Reclaim(owner)
		if free := r.pool.FreeChunks(); free != r.pool.Chunks() {
			t.Errorf("%d of %d chunks are free at the end", free, r.pool.Chunks())
		}
		if err := r.pool.Close(); err != nil {
			t.Error(err)
		}
	})
}

func ifindex(t testing.TB, name string) int {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatalf("finding %s: %v", name, err)
	}
	return i.Index
}

// frame is a TCP segment with number n as its sequence number and so many bytes of
// payload; a big frame if they are more than 1000.
func (r *rig) frame(n uint32, payload int) frame.Frame {
	addr, ok := r.pool.Alloc()
	if !ok {
		r.t.Fatal("the pool is empty")
	}
	b := r.pool.Bytes(addr, uint32(54+payload))
	clear(b)
	copy(b, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45})
	binary.BigEndian.PutUint16(b[16:], uint16(40+payload))
	b[22], b[23] = 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint32(b[38:], n)
	b[46], b[47] = 0x50, 0x10
	f := frame.Frame{Addr: addr, Len: uint32(len(b)), Total: uint32(len(b)),
		Flags: frame.CsumPartial, CsumStart: 34, CsumOffset: 16}
	if payload > 1000 {
		f.SegSize, f.HeaderLen = 1000, 54
		f.Flags |= frame.SegTCP4
	}
	return f
}

// send sends a burst and frees what is left.
func (r *rig) send(list []frame.Frame) int {
	n := r.dev.Send(list)
	for i := n; i < len(list); i++ {
		r.pool.FreeFrame(&list[i])
	}
	return n
}

// Frames of the two ways arrive in the order in which they were sent.
func TestOrderThroughTheKernel(t *testing.T) {
	r := newRig(t)
	const bursts = 400
	sent, next := uint32(0), uint32(0)
	buf := make([]byte, 4096)
	for i := range bursts {
		var list []frame.Frame
		for k := range uint32(frame.BurstSize) {
			payload := 10
			if (k*7+uint32(i))%5 < 2 {
				payload = 3000
			}
			list = append(list, r.frame(sent, payload))
			sent++
		}
		if n := r.send(list); n != len(list) {
			t.Fatalf("%d of %d frames were taken", n, len(list))
		}
		for next < sent {
			n, _, err := unix.Recvfrom(r.peer, buf, unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			if n < 54 {
				t.Fatalf("%d bytes arrived", n)
			}
			if got := binary.BigEndian.Uint32(buf[38:]); got != next {
				t.Fatalf("frame %d arrived when %d was next", got, next)
			}
			next++
		}
	}
	if next != sent {
		t.Errorf("%d frames were sent, %d arrived", sent, next)
	}
	var s frame.DeviceStats
	if r.dev.Stats(&s); s.TxRefused != 0 || s.TxRingFull != 0 || s.TxInvalid != 0 || s.TxErrors != 0 {
		t.Errorf("counters %+v", s)
	}
}

// A device that goes down takes frames and counts them, works again when it is up,
// and when it is removed costs no memory.
func TestDownAndGone(t *testing.T) {
	r := newRig(t)
	burst := func() []frame.Frame {
		return []frame.Frame{r.frame(0, 10), r.frame(1, 3000), r.frame(2, 10), r.frame(3, 3000)}
	}
	down := func() uint64 {
		var s frame.DeviceStats
		r.dev.Stats(&s)
		return s.TxLinkDown
	}
	r.send(burst())
	r.node.Down(t, r.port)
	for range 10 {
		if n := r.send(burst()); n != 4 {
			t.Errorf("%d of 4 frames were taken", n)
		}
	}
	if down() < 30 {
		t.Errorf("%d frames were counted as link down", down())
	}
	r.node.Up(t, r.port)
	buf := make([]byte, 4096)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		r.send(burst())
		if n, _, _ := unix.Recvfrom(r.peer, buf, unix.MSG_DONTWAIT); n == 3054 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no big frame arrived after the device came up again")
		}
	}
	r.node.Delete(t, r.port)
	before := down()
	for range 10 {
		r.send(burst())
	}
	if got := down() - before; got < 30 {
		t.Errorf("%d frames were counted as link down after the device was removed", got)
	}
}

func TestSendDoesNotAllocate(t *testing.T) {
	r := newRig(t)
	list := make([]frame.Frame, 0, 8)
	n := testing.AllocsPerRun(100, func() {
		list = list[:0]
		for i := range uint32(8) {
			list = append(list, r.frame(i, int(10+2990*(i&1))))
		}
		r.send(list)
		r.dev.Recv(nil)
	})
	if n != 0 {
		t.Errorf("%v allocations a burst of 8 frames", n)
	}
}
