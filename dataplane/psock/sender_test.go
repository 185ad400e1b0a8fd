package psock

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os/exec"
	"testing"

	"culvert/dataplane/frame"
	"culvert/dataplane/mixed"
	"culvert/internal/testnet"

	"golang.org/x/sys/unix"
)

// offload makes f, of packet, what a pod's or a merge's big frame is.
func offload(f *frame.Frame, v6 bool, proto byte, size int) {
	f.CsumStart, f.Flags, f.SegSize = 34, frame.CsumPartial, uint16(size)
	if v6 {
		f.CsumStart = 54
	}
	switch {
	case proto == unix.IPPROTO_UDP:
		f.CsumOffset, f.HeaderLen = 6, f.CsumStart+8
		f.Flags |= frame.SegUDP
	case v6:
		f.CsumOffset, f.HeaderLen = 16, f.CsumStart+20
		f.Flags |= frame.SegTCP6
	default:
		f.CsumOffset, f.HeaderLen = 16, f.CsumStart+20
		f.Flags |= frame.SegTCP4
	}
}

// What arrives in the pod is the frame that was sent, whole, with its segment size
// and its checksum still partial.
func TestSend(t *testing.T) {
	for _, c := range []struct {
		name        string
		v6          bool
		proto       byte
		payload     int
		first, rest int
		gsoType     byte
	}{
		{"TCP over IPv4", false, unix.IPPROTO_TCP, 64000, 3840, 3840, 1},
		{"TCP over IPv6", true, unix.IPPROTO_TCP, 64000, 3840, 3840, 4},
		{"UDP over IPv4", false, unix.IPPROTO_UDP, 14480, 3840, 3840, 5},
		{"UDP over IPv6", true, unix.IPPROTO_UDP, 14480, 3840, 3840, 5},
		{"many chunks", false, unix.IPPROTO_TCP, 64000, 54, 336, 1},
		{"headers alone in the first chunk", false, unix.IPPROTO_TCP, 64000, 54, 3840, 1},
		{"one segment and a byte", false, unix.IPPROTO_TCP, 1449, 3840, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			peer := openPlain(t, r.pod, "eth0")
			b := packet(c.v6, c.proto, c.payload)
			f := r.frameOf(b, c.first, c.rest)
			offload(&f, c.v6, c.proto, 1448)
			if got := r.send.Send(&f); got != mixed.Sent {
				t.Fatalf("result %d", got)
			}
			r.pool.FreeFrame(&f)
			h, got := peer.next(t)
			if !bytes.Equal(got, b) {
				t.Fatalf("%d bytes arrived, or others, of %d", len(got), len(b))
			}
			want := []byte{1, c.gsoType}
			if !bytes.Equal(h[:2], want) || binary.NativeEndian.Uint16(h[4:]) != 1448 ||
				binary.NativeEndian.Uint16(h[6:]) != f.CsumStart || binary.NativeEndian.Uint16(h[8:]) != f.CsumOffset {
				t.Errorf("virtio_net_hdr % x", h)
			}
		})
	}
}

// A frame of no segments goes as well.
func TestSendSmall(t *testing.T) {
	r := newRig(t)
	peer := openPlain(t, r.pod, "eth0")
	b := packet(false, unix.IPPROTO_UDP, 1000)
	f := r.frameOf(b, 100, 300)
	if got := r.send.Send(&f); got != mixed.Sent {
		t.Fatalf("result %d", got)
	}
	r.pool.FreeFrame(&f)
	if h, got := peer.next(t); !bytes.Equal(got, b) || h[0] != 0 || h[1] != 0 {
		t.Errorf("%d bytes arrived, or others, of %d, header % x", len(got), len(b), h)
	}
}

// A device that was allowed to takes a frame of 200 KB whole. One that was not
// says so: the kernel would drop the frame.
func TestSendBeyond64K(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		t.Run(fmt.Sprint("allowed ", allowed), func(t *testing.T) {
			r := newRig(t)
			s := r.send
			if allowed {
				allowBig(t, r.node, r.port, frame.MaxBytes+1000)
				s = r.openSender(r.node, r.port)
			}
			if got, want := s.Limits().Bytes, map[bool]int{true: frame.MaxBytes, false: 65535}[allowed]; got != want {
				t.Errorf("frames of %d bytes are taken whole, want %d", got, want)
			}
			peer := openPlain(t, r.pod, "eth0")
			b := packet(false, unix.IPPROTO_TCP, 200<<10)
			f := r.frameOf(b, 3840, 3840)
			offload(&f, false, unix.IPPROTO_TCP, 1448)
			want := map[bool]mixed.Result{true: mixed.Sent, false: mixed.Dropped}[allowed]
			if got := s.Send(&f); got != want {
				t.Fatalf("result %d, want %d", got, want)
			}
			r.pool.FreeFrame(&f)
			if !allowed {
				return
			}
			h, got := peer.next(t)
			if !bytes.Equal(got, b) || binary.NativeEndian.Uint16(h[4:]) != 1448 {
				t.Errorf("%d bytes arrived, or others, of %d, header % x", len(got), len(b), h)
			}
		})
	}
}

// Every way in which a frame does not arrive has its result.
func TestSendResults(t *testing.T) {
	r := newRig(t)
	send := func(change func(f *frame.Frame)) mixed.Result {
		whole := r.frameOf(packet(false, unix.IPPROTO_TCP, 3000), 3840, 0)
		defer r.pool.FreeFrame(&whole)
		f := whole
		offload(&f, false, unix.IPPROTO_TCP, 1000)
		if change != nil {
			change(&f)
		}
		return r.send.Send(&f)
	}
	expect := func(what string, got, want mixed.Result) {
		t.Helper()
		if got != want {
			t.Errorf("%s: result %d, want %d", what, got, want)
		}
	}
	expect("a good frame", send(nil), mixed.Sent)
	expect("longer than the MTU", send(func(f *frame.Frame) { f.SegSize, f.Flags = 0, 0 }), mixed.Refused)
	expect("a checksum outside", send(func(f *frame.Frame) { f.CsumStart = 60000 }), mixed.Refused)
	expect("no header", send(func(f *frame.Frame) { f.Len, f.Total = 13, 13 }), mixed.Refused)
	expect("too many chunks", send(func(f *frame.Frame) { f.Rest = make([]frame.Desc, maxChunks) }), mixed.Refused)
	r.pod.Down(t, "eth0")
	expect("no carrier", send(nil), mixed.Dropped)
	r.node.Down(t, r.port)
	expect("down", send(nil), mixed.Down)
	r.node.Up(t, r.port)
	r.pod.Up(t, "eth0")
	waitUntil(t, "frames go again", func() bool { return send(nil) == mixed.Sent })
	r.node.Delete(t, r.port)
	expect("removed", send(nil), mixed.Gone)
	expect("no room", result(unix.EAGAIN), mixed.Full)
	expect("closed", result(unix.EBADF), mixed.Failed)
	r.node.Do(t, func() {
		if _, err := OpenSender("nothing", 9999, r.pool); err == nil {
			t.Error("a sender to no device was opened")
		}
	})
}

func TestSendDoesNotAllocate(t *testing.T) {
	r := newRig(t)
	f := r.frameOf(packet(false, unix.IPPROTO_TCP, 64000), 3840, 3840)
	defer r.pool.FreeFrame(&f)
	offload(&f, false, unix.IPPROTO_TCP, 1448)
	if n := testing.AllocsPerRun(100, func() { r.send.Send(&f) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

// What one 64 KB frame costs to send into a pod that has no use for it.
func BenchmarkSend(b *testing.B) {
	r := newRig(b, testnet.MTU(1500))
	f := r.frameOf(packet(false, unix.IPPROTO_TCP, 64000), 3840, 3840)
	defer r.pool.FreeFrame(&f)
	offload(&f, false, unix.IPPROTO_TCP, 1448)
	b.SetBytes(int64(f.Total))
	for b.Loop() {
		if got := r.send.Send(&f); got != mixed.Sent {
			b.Fatalf("result %d", got)
		}
	}
}

// Offloads that a device has not, or that somebody has switched off, are not
// offered: the kernel would drop the frames.
func TestLimitsFollowTheDevice(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		off  string
		want frame.Offload
	}{
		{"", frame.OffloadTCP | frame.OffloadUDP},
		{"tx-udp-segmentation", frame.OffloadTCP},
		{"tso", 0},
	} {
		if c.off != "" {
			r.node.Do(t, func() {
				if out, err := exec.Command("ethtool", "-K", r.port, c.off, "off").CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			})
		}
		got := r.openSender(r.node, r.port).Limits()
		if got.Offload != c.want || (got.Bytes != 0) != (c.want != 0) {
			t.Errorf("without %q: limits %+v, want offload %d", c.off, got, c.want)
		}
	}
}
