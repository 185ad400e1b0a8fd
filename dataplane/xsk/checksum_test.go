package xsk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/internal/testnet"
)

// naiveSum is RFC 1071 read aloud.
func naiveSum(b []byte) uint16 {
	sum := uint32(0)
	for i, c := range b {
		if i%2 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// same reports whether two ones' complement sums are equal: 0 and 0xffff are.
func same(a, b uint16) bool { return a%0xffff == b%0xffff }

func TestSum16(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 400)
	for _, fill := range []func() byte{
		func() byte { return byte(rng.Uint32()) }, func() byte { return 0xff }, func() byte { return 0 },
	} {
		for i := range data {
			data[i] = fill()
		}
		for n := range len(data) {
			if got, want := sum16(data[:n]), naiveSum(data[:n]); !same(got, want) {
				t.Fatalf("sum of %d bytes is %#x, want %#x", n, got, want)
			}
		}
	}
}

// A frame split at any place gets the checksum that it gets in one piece.
func TestCompleteChecksumOverChunks(t *testing.T) {
	pool, err := frame.NewPool(8, 2048, true)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	rng := rand.New(rand.NewPCG(3, 4))
	var addrs [3]uint64
	for i := range addrs {
		addrs[i], _ = pool.Alloc()
	}
	const start, offset = 34, 16
	for range 2000 {
		data := make([]byte, start+20+rng.IntN(300))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		cut1 := start + 20 + rng.IntN(len(data)-start-19)
		cut2 := cut1 + rng.IntN(len(data)-cut1+1)
		f := frame.Frame{Addr: addrs[0], Len: uint32(cut1), Flags: frame.CsumPartial, CsumStart: start, CsumOffset: offset}
		copy(pool.Bytes(addrs[0], f.Len), data[:cut1])
		for i, part := range [][]byte{data[cut1:cut2], data[cut2:]} {
			copy(pool.Bytes(addrs[i+1], uint32(len(part))), part)
			f.Rest = append(f.Rest, frame.Desc{Addr: addrs[i+1], Len: uint32(len(part))})
		}
		completeChecksum(pool, &f)
		got := binary.BigEndian.Uint16(pool.Bytes(f.Addr, f.Len)[start+offset:])
		if want := ^naiveSum(data[start:]); !same(got, want) {
			t.Fatalf("cut at %d and %d of %d: checksum %#x, want %#x", cut1, cut2, len(data), got, want)
		}
	}
}

// A UDP checksum that comes out as 0 is sent as 0xffff; a TCP one is not.
func TestZeroChecksum(t *testing.T) {
	pool, err := frame.NewPool(1, 2048, true)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	addr, _ := pool.Alloc()
	for offset, want := range map[uint16]uint16{udpChecksumOffset: 0xffff, 16: 0} {
		f := frame.Frame{Addr: addr, Len: 60, CsumStart: 34, CsumOffset: offset}
		b := pool.Bytes(addr, 60)
		clear(b)
		b[58], b[59] = 0xff, 0xff
		completeChecksum(pool, &f)
		if got := binary.BigEndian.Uint16(b[34+offset:]); got != want {
			t.Errorf("field at %d: %#x, want %#x", offset, got, want)
		}
	}
}

// Pods leave checksums partial; what a pod's real TCP and UDP sockets accept is
// right, whether the kernel completes it or we do.
func TestPartialChecksumsArriveComplete(t *testing.T) {
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%t", offload), func(t *testing.T) {
			r := newRig(t, 4096)
			a, b := r.addPod(ModeGeneric, testnet.MTU(65535)), r.addPod(ModeGeneric, testnet.MTU(65535))
			if !a.sock.TxChecksum() || !b.sock.TxChecksum() {
				t.Fatal("this kernel has transmit metadata, but the sockets do not use it")
			}
			a.sock.csumOffload, b.sock.csumOffload = offload, offload
			r.forward()
			a.pod.MustPing(t, "10.0.0.2")
			transfer(t, a.pod, b.pod, "10.0.0.2", 1<<20)
			for _, n := range []int{1, 17, 100, 1473, 20001, 60000} {
				datagram(t, a.pod, b.pod, n)
			}
			r.halt()
			if r.partial.Load() < 10 {
				t.Errorf("only %d frames had a partial checksum: the test tests nothing", r.partial.Load())
			}
			checkClean(t, a.sock, b.sock)
		})
	}
}

// A wrong checksum does not arrive: the receiving kernel does look.
func TestWrongChecksumIsNoticed(t *testing.T) {
	r := newRig(t, 4096)
	a, b := r.addPod(ModeGeneric), r.addPod(ModeGeneric)
	a.sock.csumOffload, b.sock.csumOffload = false, false
	r.forward()
	a.pod.MustPing(t, "10.0.0.2")
	r.spoil.Store(true)
	if err := exchange(t, a.pod, b.pod, 100); err == nil {
		t.Error("a datagram with a partial checksum was accepted")
	}
	r.spoil.Store(false)
	datagram(t, a.pod, b.pod, 100)
}

func datagram(t *testing.T, from, to *testnet.NS, n int) {
	t.Helper()
	if err := exchange(t, from, to, n); err != nil {
		t.Errorf("a datagram of %d bytes: %v", n, err)
	}
}

// exchange sends one UDP datagram to 10.0.0.2 in the namespace to.
func exchange(t *testing.T, from, to *testnet.NS, n int) error {
	t.Helper()
	var in net.PacketConn
	var err error
	to.Do(t, func() { in, err = net.ListenPacket("udp4", "10.0.0.2:0") })
	if err != nil {
		return err
	}
	defer in.Close()
	want := bytes.Repeat([]byte("culvert"), n/7+1)[:n]
	from.Do(t, func() {
		var out net.Conn
		if out, err = net.Dial("udp4", in.LocalAddr().String()); err == nil {
			_, err = out.Write(want)
			out.Close()
		}
	})
	if err != nil {
		return err
	}
	in.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	got := make([]byte, 65536)
	m, _, err := in.ReadFrom(got)
	if err == nil && !bytes.Equal(got[:m], want) {
		err = fmt.Errorf("%d other bytes arrived", m)
	}
	return err
}
