package frame

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func newTestPool(t *testing.T, chunks, size int, checked bool) *Pool {
	t.Helper()
	p, err := NewPool(chunks, size, checked)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestNewPoolRefuses(t *testing.T) {
	for _, c := range []struct{ chunks, size int }{{0, 2048}, {1<<20 + 1, 2048}, {8, 1024}, {8, 3000}, {8, 8192}} {
		if _, err := NewPool(c.chunks, c.size, false); err == nil {
			t.Errorf("%d chunks of %d bytes were accepted", c.chunks, c.size)
		}
	}
}

func TestPoolAddresses(t *testing.T) {
	for _, size := range []int{2048, 4096} {
		p := newTestPool(t, 3, size, true)
		if p.ChunkSize() != size || p.Chunks() != 3 || len(p.Region())%4096 != 0 {
			t.Errorf("chunk size %d, %d chunks, region of %d", p.ChunkSize(), p.Chunks(), len(p.Region()))
		}
		seen := map[uint64]bool{}
		for range 3 {
			addr, ok := p.Alloc()
			base := p.Base(addr)
			if !ok || addr-base != Headroom || base%uint64(size) != 0 || seen[base] {
				t.Fatalf("allocated %#x (%t) after %v", addr, ok, seen)
			}
			seen[base] = true
			if got := p.HeadroomOf(addr); got != Headroom-TxMetadataLen {
				t.Errorf("headroom %d", got)
			}
			if got := p.TailroomOf(addr); got != size-Headroom {
				t.Errorf("tailroom %d", got)
			}
			b := p.Bytes(addr, uint32(p.TailroomOf(addr)))
			b[len(b)-1] = 1 // the last byte is ours
			if &p.Region()[addr] != &b[0] {
				t.Error("Bytes is not a view into the region")
			}
		}
		if _, ok := p.Alloc(); ok {
			t.Error("a fourth chunk of three")
		}
	}
}

// mustPanic runs f and checks what it panics with.
func mustPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		if got, _ := recover().(string); !strings.Contains(got, want) {
			t.Errorf("panic %q, want one about %q", got, want)
		}
	}()
	f()
}

func TestCheckedPoolPanics(t *testing.T) {
	p := newTestPool(t, 4, 2048, true)
	dev, other := p.NewOwner(), p.NewOwner()
	addr, _ := p.Alloc()
	mustPanic(t, "does not own", func() { p.Take(addr, dev) })
	p.Give(addr, dev)
	mustPanic(t, "freed", func() { p.Free(addr) })
	mustPanic(t, "given", func() { p.Give(addr, other) })
	mustPanic(t, "does not own", func() { p.Take(addr, other) })
	mustPanic(t, "does not own", func() { p.Take(1<<40, dev) })
	if !p.Take(addr+100, dev) {
		t.Error("an address inside the chunk was refused")
	}
	p.Free(addr)
	mustPanic(t, "freed", func() { p.Free(addr) })
	mustPanic(t, "freed", func() { p.Free(1 << 40) })
}

func TestUncheckedPoolRefusesForeignChunks(t *testing.T) {
	p := newTestPool(t, 4, 2048, false)
	dev := p.NewOwner()
	addr, _ := p.Alloc()
	for _, a := range []uint64{addr, 0, 4 * 2048, 1 << 63} {
		if p.Take(a, dev) {
			t.Errorf("took %#x, which the device never had", a)
		}
	}
	if p.Held(OwnerWorker) != 1 || p.FreeChunks() != 3 {
		t.Errorf("%d held, %d free", p.Held(OwnerWorker), p.FreeChunks())
	}
}

func TestReclaim(t *testing.T) {
	p := newTestPool(t, 8, 2048, true)
	dev, other := p.NewOwner(), p.NewOwner()
	for i := range 6 {
		addr, _ := p.Alloc()
		p.Give(addr, []Owner{dev, dev, other}[i%3])
	}
	if n := p.Reclaim(dev); n != 4 || p.FreeChunks() != 6 || p.Held(other) != 2 {
		t.Errorf("reclaimed %d; %d free; the other device holds %d", n, p.FreeChunks(), p.Held(other))
	}
	if again := p.NewOwner(); again != dev {
		t.Errorf("the released tag %d was not used again: %d", dev, again)
	}
	p.Reclaim(other)
	if p.FreeChunks() != 8 {
		t.Errorf("%d chunks free, want 8", p.FreeChunks())
	}
}

func TestFreeFrame(t *testing.T) {
	p := newTestPool(t, 8, 2048, true)
	var f Frame
	f.Addr, _ = p.Alloc()
	for range 3 {
		addr, _ := p.Alloc()
		f.Rest = append(f.Rest, Desc{Addr: addr, Len: 1})
	}
	p.FreeFrame(&f)
	if p.FreeChunks() != 8 {
		t.Errorf("%d chunks free, want 8", p.FreeChunks())
	}
}

// Random handing about, against a map of who should have what.
func TestPoolModel(t *testing.T) {
	p := newTestPool(t, 64, 4096, true)
	rng := rand.New(rand.NewPCG(5, 6))
	owners := []Owner{OwnerWorker, p.NewOwner(), p.NewOwner()}
	held := map[Owner][]uint64{}
	pick := func(o Owner) (addr uint64, ok bool) {
		if len(held[o]) == 0 {
			return 0, false
		}
		i := rng.IntN(len(held[o]))
		addr = held[o][i]
		held[o] = append(held[o][:i:i], held[o][i+1:]...)
		return addr, true
	}
	for range 20000 {
		dev := owners[1+rng.IntN(2)]
		switch rng.IntN(4) {
		case 0:
			if addr, ok := p.Alloc(); ok {
				held[OwnerWorker] = append(held[OwnerWorker], addr)
			}
		case 1:
			if addr, ok := pick(OwnerWorker); ok {
				p.Free(addr)
			}
		case 2:
			if addr, ok := pick(OwnerWorker); ok {
				p.Give(addr, dev)
				held[dev] = append(held[dev], addr)
			}
		case 3:
			if addr, ok := pick(dev); ok {
				if !p.Take(addr, dev) {
					t.Fatal("a device's own chunk was refused")
				}
				held[OwnerWorker] = append(held[OwnerWorker], addr)
			}
		}
		want := 64
		for _, o := range owners {
			if got := p.Held(o); got != len(held[o]) {
				t.Fatalf("owner %d holds %d, want %d", o, got, len(held[o]))
			}
			want -= len(held[o])
		}
		if p.FreeChunks() != want {
			t.Fatalf("%d free, want %d", p.FreeChunks(), want)
		}
	}
}

// A chunk that several descriptors cite is free when the last of them has ended,
// in whatever order the worker and the device end theirs.
func TestCitations(t *testing.T) {
	for _, order := range []string{"ddd", "dwd", "wdd", "wwd", "ddw", "www"} {
		p := newTestPool(t, 2, 4096, true)
		dev := p.NewOwner()
		addr, _ := p.Alloc()
		p.Cite(addr)
		p.Cite(addr)
		for _, who := range order { // the worker gives what it does not end itself
			if who == 'd' {
				p.Give(addr, dev)
			}
		}
		for i, who := range order {
			if p.FreeChunks() != 1 {
				t.Fatalf("%s: the chunk is free after %d of 3", order, i)
			}
			if who == 'd' && !p.Take(addr, dev) {
				t.Fatalf("%s: the device's descriptor is not known", order)
			}
			p.Free(addr)
		}
		if p.FreeChunks() != 2 {
			t.Errorf("%s: the chunk was lost", order)
		}
	}
}

// What a device holds of a chunk when it closes is one chunk, however often cited.
func TestReclaimCitations(t *testing.T) {
	p := newTestPool(t, 2, 4096, true)
	dev := p.NewOwner()
	addr, _ := p.Alloc()
	p.Cite(addr)
	p.Cite(addr)
	p.Give(addr, dev)
	p.Give(addr, dev)
	p.Free(addr)
	if n := p.Reclaim(dev); n != 1 || p.FreeChunks() != 2 {
		t.Errorf("%d chunks reclaimed, %d free, want 1 and 2", n, p.FreeChunks())
	}
	again, _ := p.Alloc()
	p.Free(again) // no citation is left over
	if p.FreeChunks() != 2 {
		t.Error("a reclaimed chunk kept its citations")
	}
}

// The mistakes that checked mode is there for.
func TestCitationsChecked(t *testing.T) {
	for name, misuse := range map[string]func(p *Pool, dev Owner, addr uint64){
		"freed once too often":     func(p *Pool, _ Owner, addr uint64) { p.Free(addr); p.Free(addr); p.Free(addr) },
		"given once too often":     func(p *Pool, dev Owner, addr uint64) { p.Give(addr, dev); p.Give(addr, dev); p.Give(addr, dev) },
		"taken once too often":     func(p *Pool, dev Owner, addr uint64) { p.Give(addr, dev); p.Take(addr, dev); p.Take(addr, dev) },
		"cited by who has none":    func(p *Pool, dev Owner, addr uint64) { p.Give(addr, dev); p.Give(addr, dev); p.Cite(addr) },
		"reclaimed while in use":   func(p *Pool, dev Owner, addr uint64) { p.Give(addr, dev); p.Reclaim(dev) },
		"allocated while cited on": func(p *Pool, _ Owner, addr uint64) { p.owner[0] = ownerFree; p.free = append(p.free, 0); p.Alloc() },
	} {
		t.Run(name, func(t *testing.T) {
			p := newTestPool(t, 1, 4096, true)
			addr, _ := p.Alloc()
			p.Cite(addr)
			defer func() {
				if recover() == nil {
					t.Error("nobody noticed")
				}
			}()
			misuse(p, p.NewOwner(), addr)
		})
	}
}
