package vnet

import (
	"bytes"
	"testing"

	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

func TestRoundTrip(t *testing.T) {
	for _, f := range []frame.Frame{
		{},
		{Flags: frame.CsumPartial, CsumStart: 34, CsumOffset: 16},
		{Flags: frame.CsumPartial | frame.SegTCP4, CsumStart: 34, CsumOffset: 16, SegSize: 1398},
		{Flags: frame.CsumPartial | frame.SegTCP4 | frame.SegCWR, CsumStart: 34, CsumOffset: 16, SegSize: 1398},
		{Flags: frame.CsumPartial | frame.SegTCP6, CsumStart: 54, CsumOffset: 16, SegSize: 1378},
		{Flags: frame.CsumPartial | frame.SegUDP, CsumStart: 34, CsumOffset: 6, SegSize: 1200},
	} {
		var h [Len]byte
		Put(h[:], &f)
		var got frame.Frame
		if !Get(h[:], &got) {
			t.Errorf("%+v: refused", f)
		}
		if got.Flags != f.Flags || got.SegSize != f.SegSize || got.CsumStart != f.CsumStart || got.CsumOffset != f.CsumOffset {
			t.Errorf("%+v became %+v", f, got)
		}
	}
}

// The header of a tunnel's frame, byte for byte, on a little-endian machine:
// struct virtio_net_hdr_v1_hash_tunnel.
func TestTunnel(t *testing.T) {
	f := frame.Frame{Flags: frame.CsumPartial | frame.SegTCP4, CsumStart: 84, CsumOffset: 16, SegSize: 1398, HeaderLen: 116, OuterL4: 34}
	want := []byte{1, 0x21, 116, 0, 0x76, 5, 84, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 34, 0, 64, 0}
	h := bytes.Repeat([]byte{0xaa}, TunnelLen) // nothing of the frame before is left
	Put(h, &f)
	if !bytes.Equal(h, want) {
		t.Errorf("%x, want %x", h, want)
	}
	f.OuterL4, f.CsumStart = 54, 104
	Put(h, &f)
	if h[1] != 0x41 || h[20] != 54 || h[22] != 84 {
		t.Errorf("over IPv6: %x", h)
	}
}

// What a header says that is no virtio_net_hdr of a frame, or of another one.
func TestAccept(t *testing.T) {
	big := []byte{1, 1, 54, 0, 0x76, 5, 34, 0, 16, 0}
	valid := []byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0} // VIRTIO_NET_HDR_F_DATA_VALID: nobody asks
	for _, c := range []struct {
		name     string
		h        []byte
		n, first uint32
		ok       bool
	}{
		{"big", big, 9000, 3584, true},
		{"the checksum ends the first chunk", big, 9000, 52, true},
		{"the checksum is behind the first chunk", big, 9000, 51, false},
		{"the checksum is in the Ethernet header", []byte{1, 0, 0, 0, 0, 0, 13, 0, 0, 0}, 100, 100, false},
		{"big without a checksum", []byte{0, 1, 54, 0, 0x76, 5, 34, 0, 16, 0}, 9000, 3584, false},
		{"plain", make([]byte, Len), 14, 14, true},
		{"verified", valid, 60, 60, true},
		{"too short", make([]byte, Len), 13, 13, false},
	} {
		var f frame.Frame
		if ok := Accept(c.h, c.n, c.first, &f); ok != c.ok {
			t.Errorf("%s: %t, %+v", c.name, ok, f)
		}
		if c.name == "verified" && f.Flags != 0 {
			t.Errorf("%s: %+v", c.name, f)
		}
	}
}

func TestGather(t *testing.T) {
	pool, err := frame.NewPool(4, 4096, true)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	a, _ := pool.Alloc()
	b, _ := pool.Alloc()
	f := frame.Frame{Addr: a, Len: 60, Rest: []frame.Desc{{Addr: b, Len: 0}, {Addr: b + 8, Len: 100}}}
	var iov [3]unix.Iovec
	n := Gather(iov[:], pool, &f)
	if n != 2 || iov[0].Len != 60 || iov[1].Len != 100 || iov[0].Base != &pool.Bytes(a, 1)[0] || iov[1].Base != &pool.Bytes(b+8, 1)[0] {
		t.Errorf("%d places: %+v", n, iov)
	}
	pool.Free(a)
	pool.Free(b)
}

func TestGetRefuses(t *testing.T) {
	for _, h := range [][]byte{
		{1, 3, 54, 0, 0x76, 5, 34, 0, 6, 0},     // UFO
		{1, 1, 54, 0, 0, 0, 34, 0, 16, 0},       // no size
		{1, 0x99, 54, 0, 0x76, 5, 34, 0, 16, 0}, // not a type
	} {
		if f := (frame.Frame{}); Get(h, &f) {
			t.Errorf("%x: accepted as %+v", h, f)
		}
	}
}

func FuzzGet(f *testing.F) {
	f.Add([]byte{1, 1, 54, 0, 0x76, 5, 34, 0, 16, 0})
	f.Fuzz(func(t *testing.T, h []byte) {
		if len(h) < Len {
			return
		}
		var fr frame.Frame
		if Get(h, &fr) != (fr.SegSize != 0 || h[1] == gsoNone) && fr.Flags&frame.SegKinds != 0 {
			t.Errorf("%x: %+v", h[:Len], fr)
		}
		if fr.SegSize != 0 && fr.Flags&frame.SegKinds == 0 {
			t.Errorf("%x: a size without a kind: %+v", h[:Len], fr)
		}
	})
}
