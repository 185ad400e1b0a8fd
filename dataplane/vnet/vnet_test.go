package vnet

import (
	"bytes"
	"testing"

	"culvert/dataplane/frame"
)

func TestRoundTrip(t *testing.T) {
	for _, f := range []frame.Frame{
		{},
		{Flags: frame.CsumValid},
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
