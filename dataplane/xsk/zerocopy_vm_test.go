//go:build vm

package xsk

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"culvert/dataplane/frame"
)

// TestZeroCopy runs inside a virtual machine with Linux 7.2: virtio-net is
// the one driver there with AF_XDP zero-copy. The environment names the device
// and an address behind it that answers ARP:
//
//	go test -c -tags vm -o xsk.test ./dataplane/xsk
//	XSK_ZC_DEVICE=eth1 XSK_ZC_PEER=192.168.78.1 ./xsk.test -test.run ZeroCopy -test.v
func TestZeroCopy(t *testing.T) {
	name, peer := os.Getenv("XSK_ZC_DEVICE"), netip.MustParseAddr(os.Getenv("XSK_ZC_PEER"))
	dev, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %+v", name, queryFeatures(dev.Index))
	for _, zeroCopy := range []string{ZeroCopyOn, ZeroCopyAuto, ZeroCopyOff} {
		for _, sg := range []bool{false, true} {
			cfg := SocketConfig{Ifindex: dev.Index, Ifname: name, RingSize: 64, ZeroCopy: zeroCopy, SG: sg}
			t.Run(fmt.Sprintf("%s/SG=%t", zeroCopy, sg), func(t *testing.T) { testARPRounds(t, cfg, dev, peer) })
		}
	}
}

// testARPRounds asks for peer through sockets on all queue pairs, which share
// one memory, until it has 200 answers, and wants every chunk back.
//
// With XDP attached, virtio-net has receive queues beyond its queue pairs. They
// get no socket, though frames do arrive there: Linux 7.2 keeps such a queue's
// pool after the program is detached, and attaching again crashes the kernel
// (xp_alloc_batch on a freed pool). So an answer may go to the kernel instead.
func testARPRounds(t *testing.T, cfg SocketConfig, dev *net.Interface, peer netip.Addr) {
	pool, err := frame.NewPool(2048, 4096, true)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	at, err := AttachUplink(cfg.Ifindex, cfg.Ifname, ModeNative, nil)
	if err != nil {
		t.Fatal(err)
	}
	at.Close() // the uplink's program attaches to this driver; ARP needs the pod's
	if at, err = AttachPod(cfg.Ifindex, cfg.Ifname, ModeNative); err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	umem := NewUmem(pool)
	var socks []*Socket
	for ; cfg.Queue < queuePairs(cfg.Ifname); cfg.Queue++ {
		s, err := umem.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Start(pool.NewOwner(), 128); err != nil {
			t.Fatal(err)
		}
		if err := at.SetSocket(cfg.Queue, s); err != nil {
			t.Fatal(err)
		}
		if wantZC := cfg.ZeroCopy != ZeroCopyOff; s.ZeroCopy() != wantZC {
			t.Errorf("queue %d: zero-copy %t", cfg.Queue, s.ZeroCopy())
		}
		socks = append(socks, s)
	}
	answers := 0
	for asked := 0; answers < 200; asked++ {
		if asked == 1000 {
			t.Fatalf("%d answers to %d requests", answers, asked)
		}
		addr, _ := pool.Alloc()
		request := frame.Frame{Addr: addr, Len: 42, Total: 42}
		putARP(pool.Bytes(addr, 42), dev.HardwareAddr, peer)
		if socks[asked%len(socks)].Send([]frame.Frame{request}) != 1 {
			t.Fatal("the ring is full with one frame in flight")
		}
		for n, tries := 0, 0; n == 0 && tries < 20; tries++ {
			waitFor(socks...)
			n = countAnswers(pool, socks)
			answers += n
		}
	}
	waitUntil(t, "every send is completed", func() bool {
		countAnswers(pool, socks)
		left := uint32(0)
		for _, s := range socks {
			left += s.inflight
		}
		return left == 0
	})
	at.Close()
	for i, s := range socks {
		var stats frame.DeviceStats
		s.Stats(&stats)
		t.Logf("queue %d: zero-copy %t, multi-buffer %t, checksum %t, %+v", i, s.ZeroCopy(), s.Multibuffer(), s.TxChecksum(), stats)
		s.Close()
		pool.Reclaim(s.owner)
	}
	if pool.FreeChunks() != pool.Chunks() {
		t.Errorf("%d of %d chunks are left", pool.FreeChunks(), pool.Chunks())
	}
}

// queuePairs counts a device's queues that both receive and send.
func queuePairs(name string) int {
	list, _ := filepath.Glob(fmt.Sprintf("/sys/class/net/%s/queues/tx-*", name))
	return len(list)
}

// countAnswers receives what is there and counts the ARP replies.
func countAnswers(pool *frame.Pool, socks []*Socket) (n int) {
	var burst frame.Burst
	for _, s := range socks {
		burst.Reset()
		s.Recv(&burst)
		for i := range burst.N {
			f := &burst.Frames[i]
			if b := pool.Bytes(f.Addr, f.Len); len(b) >= 42 && b[12] == 8 && b[13] == 6 && b[21] == 2 {
				n++
			}
			pool.FreeFrame(f)
		}
	}
	return n
}

// putARP writes an ARP request for peer from 0.0.0.0 (RFC 5227).
func putARP(b []byte, src net.HardwareAddr, peer netip.Addr) {
	clear(b)
	copy(b, "\xff\xff\xff\xff\xff\xff")
	copy(b[6:], src)
	binary.BigEndian.PutUint16(b[12:], 0x0806)
	copy(b[14:], "\x00\x01\x08\x00\x06\x04\x00\x01")
	copy(b[22:], src)
	copy(b[38:], peer.AsSlice())
}
