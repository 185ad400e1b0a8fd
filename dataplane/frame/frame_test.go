package frame

import "testing"

func TestBurstChains(t *testing.T) {
	var b Burst
	for round := range 3 { // Reset gives everything back
		for i := range BurstSize {
			f := b.Add(Desc{Addr: uint64(i) << 12, Len: 100})
			for s := 1; s < MaxSegments; s++ {
				if !b.Chain(Desc{Addr: uint64(1000*i+s) << 12, Len: uint32(s)}) {
					t.Fatalf("round %d: frame %d refused segment %d", round, i, s)
				}
			}
			if want := burstChain - (i+1)*(MaxSegments-1); b.ChainRoom() != want {
				t.Fatalf("room for %d more chunks, want %d", b.ChainRoom(), want)
			}
			if f != &b.Frames[i] {
				t.Fatal("Add returned another frame")
			}
		}
		if b.Chain(Desc{Len: 1}) {
			t.Fatal("a full burst took another chunk")
		}
		if b.Room() != 0 || b.N != BurstSize {
			t.Fatalf("room %d, N %d in a full burst", b.Room(), b.N)
		}
		for i := range b.N { // no frame's Rest runs into another's
			f := &b.Frames[i]
			if len(f.Rest) != MaxSegments-1 || f.Total != 100+17*18/2 {
				t.Fatalf("frame %d: %d continuations, %d bytes", i, len(f.Rest), f.Total)
			}
			for s := range f.Rest {
				if f.Rest[s].Addr != uint64(1000*i+s+1)<<12 {
					t.Fatalf("frame %d segment %d has address %#x", i, s, f.Rest[s].Addr)
				}
			}
		}
		b.Reset()
	}
}

func TestAddForgetsTheFrameBefore(t *testing.T) {
	var b Burst
	f := b.Add(Desc{Addr: 1, Len: 2})
	f.Flags, f.CsumStart = CsumPartial, 34
	b.Chain(Desc{Addr: 3, Len: 4})
	b.Reset()
	if f := b.Add(Desc{Addr: 5, Len: 6}); f.Flags != 0 || f.Rest != nil || f.CsumStart != 0 || f.Total != 6 {
		t.Errorf("a new frame is %+v", *f)
	}
}

func TestBurstDoesNotAllocate(t *testing.T) {
	b := new(Burst)
	if n := testing.AllocsPerRun(100, func() {
		b.Reset()
		for range BurstSize {
			b.Add(Desc{Len: 1})
			b.Chain(Desc{Len: 1})
		}
	}); n != 0 {
		t.Errorf("%v allocations a burst", n)
	}
}

func TestSegments(t *testing.T) {
	for _, tt := range []struct {
		f        Frame
		segments uint32
		bytes    uint64
	}{
		{Frame{Total: 1464}, 1, 1464},
		{Frame{Total: 54 + 1400, HeaderLen: 54, SegSize: 1400}, 1, 1454},
		{Frame{Total: 54 + 1401, HeaderLen: 54, SegSize: 1400}, 2, 1401 + 2*54},
		{Frame{Total: 54 + 4200, HeaderLen: 54, SegSize: 1400}, 3, 3 * 1454},
		{Frame{Total: 54, HeaderLen: 54, SegSize: 1400}, 1, 54},
	} {
		if n, bytes := tt.f.OnWire(); n != uint64(tt.segments) || tt.f.Segments() != tt.segments || bytes != tt.bytes {
			t.Errorf("%+v: %d segments of %d bytes, want %d and %d", tt.f, n, bytes, tt.segments, tt.bytes)
		}
	}
}

func TestLimits(t *testing.T) {
	all := Limits{Offload: OffloadTunnelTCP | OffloadTunnelUDP, Chunks: 3, Bytes: 10000}
	plain := Limits{Offload: OffloadTCP, Chunks: 3, Bytes: 10000}
	for _, tt := range []struct {
		name string
		l    Limits
		f    Frame
		want bool
	}{
		{"TCP", plain, Frame{Total: 10000, Flags: SegTCP4, Rest: make([]Desc, 2)}, true},
		{"too many bytes", plain, Frame{Total: 10001, Flags: SegTCP4}, false},
		{"too many chunks", plain, Frame{Total: 5000, Flags: SegTCP6, Rest: make([]Desc, 3)}, false},
		{"UDP", plain, Frame{Total: 5000, Flags: SegUDP}, false},
		{"tunnel", plain, Frame{Total: 5000, Flags: SegTCP4, OuterL4: 34}, false},
		{"UDP in no tunnel", all, Frame{Total: 5000, Flags: SegUDP}, false},
		{"UDP in a tunnel", all, Frame{Total: 5000, Flags: SegUDP, OuterL4: 34}, true},
		{"no offload", Limits{Chunks: 1}, Frame{Total: 5000, Flags: SegTCP4}, false},
	} {
		if got := tt.l.Takes(&tt.f); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}
