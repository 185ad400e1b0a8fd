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
			if b.Chain(Desc{Len: 1}) {
				t.Fatal("a frame took more than MaxSegments chunks")
			}
			if f != &b.Frames[i] {
				t.Fatal("Add returned another frame")
			}
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
