package packet_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"culvert/internal/packet"
	"culvert/internal/pkttest"

	"golang.org/x/sys/unix"
)

// What Linux itself does with a frame, to hold ours against it.

// veth is a pair of devices in a namespace of its own and a packet socket at
// either end. It lives on the calling thread, which is never unlocked and dies
// with the test's goroutine, and the namespace with it.
type veth struct {
	t      testing.TB
	tx, rx int // sockets on v0 and v1, both with a virtio_net_hdr
	buf    []byte
}

// newVeth makes the pair and runs the shell commands that a test needs before it
// goes up.
func newVeth(t testing.TB, commands ...string) *veth {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a network namespace and needs root: sudo make test")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("no network namespace: %v", err)
	}
	// 65535 bytes, so that segments of any size pass.
	all := append([]string{"ip link add v0 mtu 65535 type veth peer name v1 mtu 65535"}, commands...)
	all = append(all, "ip link set v0 up", "ip link set v1 up")
	for _, c := range all {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}
	v := &veth{t: t, tx: packetSocket(t, "v0"), rx: packetSocket(t, "v1"), buf: make([]byte, 1<<17)}
	tv := unix.NsecToTimeval(int64(2 * time.Second))
	if err := unix.SetsockoptTimeval(v.rx, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	return v
}

// packetSocket sees and sends all frames of a device, with a virtio_net_hdr.
func packetSocket(t testing.TB, name string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		t.Fatalf("no device %s: %v", name, err)
	}
	for _, o := range []struct{ opt, value int }{
		{unix.PACKET_VNET_HDR, 1},
		{unix.PACKET_IGNORE_OUTGOING, 1},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.opt, o.value); err != nil {
			t.Fatalf("packet socket option %d: %v", o.opt, err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: int(ifr.Uint32())}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// Values of struct virtio_net_hdr (include/uapi/linux/virtio_net.h).
const (
	vnetLen       = 10
	vnetNeedsCsum = 1
	vnetTCPv4     = 1
	vnetTCPv6     = 4
	vnetUDP       = 5
	vnetECN       = 0x80
)

// vnetHdr is a virtio_net_hdr in the machine's byte order.
type vnetHdr struct {
	flags, gsoType                       uint8
	hdrLen, gsoSize, csumStart, csumOffs uint16
}

// gsoHdr describes a frame whose checksum is partial, of segments of mss bytes.
func gsoHdr(info *packet.Info, mss int) vnetHdr {
	offset, _ := packet.ChecksumOffset(info.Proto)
	h := vnetHdr{flags: vnetNeedsCsum, hdrLen: info.Payload, csumStart: info.L4, csumOffs: uint16(offset)}
	if info.PayloadLen() <= mss {
		return h
	}
	h.gsoSize = uint16(mss)
	switch {
	case info.Proto == packet.ProtoUDP:
		h.gsoType = vnetUDP
	case info.Has(packet.V6):
		h.gsoType = vnetTCPv6
	default:
		h.gsoType = vnetTCPv4
	}
	if info.Proto == packet.ProtoTCP && info.TCPFlags&packet.TCPCwr != 0 {
		h.gsoType |= vnetECN
	}
	return h
}

// send hands a frame to v0.
func (v *veth) send(f []byte, h vnetHdr) {
	v.t.Helper()
	b := []byte{h.flags, h.gsoType}
	for _, field := range []uint16{h.hdrLen, h.gsoSize, h.csumStart, h.csumOffs} {
		b = binary.NativeEndian.AppendUint16(b, field)
	}
	if _, err := unix.Write(v.tx, append(b, f...)); err != nil {
		v.t.Fatalf("sending: %v\n%s", err, pkttest.Dump(f))
	}
}

// receive returns the next frame that v1 got from podMAC. It is valid until the
// next call.
func (v *veth) receive() ([]byte, vnetHdr) {
	v.t.Helper()
	for {
		n, err := unix.Read(v.rx, v.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			v.t.Fatalf("receiving: %v", err)
		}
		b := v.buf[:n]
		ne := binary.NativeEndian
		h := vnetHdr{b[0], b[1], ne.Uint16(b[2:]), ne.Uint16(b[4:]), ne.Uint16(b[6:]), ne.Uint16(b[8:])}
		if f := b[vnetLen:]; packet.Ethernet(f).Src() == mac(podMAC) {
			return f, h
		}
	}
}
