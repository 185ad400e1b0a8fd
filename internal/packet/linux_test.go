package packet_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"culvert/internal/packet"
	"culvert/internal/pkttest"

	"golang.org/x/sys/unix"
)

// veth is a pair in a namespace of its own, v0's device without segmentation, so
// that the kernel cuts what is sent there. It lives on the calling thread, which
// is never unlocked and dies with the test's goroutine.
type veth struct{ tx, rx int }

func newVeth(t *testing.T) *veth {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a network namespace and needs root: sudo make test")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("no network namespace: %v", err)
	}
	for _, args := range [][]string{
		{"link", "add", "v0", "type", "veth", "peer", "name", "v1"},
		// Nothing is small enough: gso_features_check (net/core/dev.c) takes GSO away.
		{"link", "set", "v0", "gso_max_size", "1", "up"},
		{"link", "set", "v1", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip %v: %v\n%s", args, err, out)
		}
	}
	v := &veth{tx: rawSocket(t, "v0"), rx: rawSocket(t, "v1")}
	if err := unix.SetsockoptInt(v.tx, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		t.Fatal(err)
	}
	tv := unix.NsecToTimeval(int64(2 * time.Second))
	if err := unix.SetsockoptTimeval(v.rx, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	return v
}

func rawSocket(t *testing.T, name string) int {
	t.Helper()
	out, err := os.ReadFile("/proc/thread-self/net/dev") // sysfs shows another namespace
	if err != nil || !bytes.Contains(out, []byte(name)) {
		t.Fatalf("no device %s: %v", name, err)
	}
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
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: int(ifr.Uint32())}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// send hands the kernel a GSO frame, its checksum partial: struct virtio_net_hdr
// (include/uapi/linux/virtio_net.h), in the machine's byte order.
func (v *veth) send(t *testing.T, f []byte, info *packet.Info, mss int) {
	t.Helper()
	const needsCsum, gsoTCPv4, gsoTCPv6, gsoECN = 1, 1, 4, 0x80
	h := make([]byte, 10)
	h[0], h[1] = needsCsum, gsoTCPv4
	if info.Has(packet.V6) {
		h[1] = gsoTCPv6
	}
	if info.TCPFlags&packet.TCPCwr != 0 {
		h[1] |= gsoECN
	}
	if info.PayloadLen() <= mss {
		h[1] = 0
	}
	le := binary.LittleEndian
	le.PutUint16(h[2:], info.Payload)
	le.PutUint16(h[4:], uint16(mss))
	le.PutUint16(h[6:], info.L4)
	le.PutUint16(h[8:], 16)
	if _, err := unix.Write(v.tx, append(h, f...)); err != nil {
		t.Fatalf("sending: %v", err)
	}
}

// receive returns the next frame from 10.1.0.2 or fd00::2.
func (v *veth) receive(t *testing.T) []byte {
	t.Helper()
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(v.rx, buf)
		if err != nil {
			t.Fatalf("receiving: %v", err)
		}
		f := buf[:n]
		var info packet.Info
		packet.Parse(f, n, &info)
		if src := info.Key.Src; src == addr("10.1.0.2") || src == addr("fd00::2") {
			return f
		}
	}
}

// The segmenter against Linux itself: one GSO frame through a veth that cannot
// segment, and every segment byte for byte. A veth computes no checksum, so
// Linux leaves its segments' checksums partial, as Next does.
func TestSegmenterAgainstLinux(t *testing.T) {
	v := newVeth(t)
	for _, v6 := range []bool{false, true} {
		for _, flags := range []string{"A", "PA", "FPA", "CA", "CEPA"} {
			for _, size := range []int{100, 1400, 1401, 2800, 40000} {
				t.Run(fmt.Sprintf("v6=%v/%s/%d", v6, flags, size), func(t *testing.T) {
					const mss = 1400
					f := pkttest.SetPartial(bigFrame(t, v6, flags, pkttest.Pattern(size)))
					v.send(t, f, parsed(t, f), mss)
					for i, want := range segments(t, f, mss, false) {
						if got := v.receive(t); !bytes.Equal(got[14:], want) {
							t.Fatalf("segment %d from Linux is\n%sours is\n%s", i, pkttest.Dump(got), pkttest.Dump(etherFrame(want)))
						}
					}
				})
			}
		}
	}
}
