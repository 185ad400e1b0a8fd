package fib

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/gaissmai/bart"

	"culvert/internal/packet"
)

// share is how many of a thousand prefixes have a length.
type share struct{ bits, of1000 int }

// The lengths as in the tables of the Internet (potaroo.net's BGP reports of
// 2024, rounded).
var (
	lengths4 = []share{{8, 1}, {13, 1}, {14, 1}, {16, 14}, {17, 9}, {18, 14}, {19, 26}, {20, 45}, {21, 52}, {22, 112}, {23, 102}, {24, 619}, {28, 1}, {32, 3}}
	lengths6 = []share{{20, 1}, {24, 2}, {28, 4}, {29, 25}, {30, 4}, {32, 120}, {33, 20}, {34, 12}, {36, 45}, {38, 12}, {40, 90}, {42, 25},
		{44, 100}, {45, 12}, {46, 20}, {47, 15}, {48, 469}, {56, 12}, {64, 10}, {128, 2}}
	// Where registries give IPv6 addresses from.
	tops6 = []uint16{0x2001, 0x2400, 0x2401, 0x2402, 0x2403, 0x2404, 0x2405, 0x2406, 0x2407, 0x2408, 0x2409, 0x240a, 0x240e, 0x2600, 0x2601,
		0x2602, 0x2603, 0x2604, 0x2605, 0x2606, 0x2607, 0x2620, 0x2800, 0x2801, 0x2803, 0x2804, 0x2806, 0x2a00, 0x2a01, 0x2a02, 0x2a03, 0x2a04,
		0x2a05, 0x2a06, 0x2a07, 0x2a09, 0x2a0a, 0x2a0b, 0x2a0c, 0x2a0d, 0x2a0e, 0x2a0f, 0x2a10, 0x2a12, 0x2a13, 0x2a14, 0x2c0e, 0x2c0f}
)

// internet are n different prefixes of one family with the lengths that the
// Internet's have; IPv6 ones are in 40,000 allocations.
func internet(v4 bool, n int) []netip.Prefix {
	r := rand.New(rand.NewPCG(21, 22))
	lengths := lengths4
	if !v4 {
		lengths = lengths6
	}
	var allocations [40000][4]byte
	for i := range allocations {
		top := tops6[r.IntN(len(tops6))]
		allocations[i] = [4]byte{byte(top >> 8), byte(top), byte(r.IntN(256)), byte(r.IntN(256))}
	}
	seen := make(map[netip.Prefix]bool, n)
	all := make([]netip.Prefix, 0, n)
	for len(all) < n {
		a := netip.AddrFrom4([4]byte{byte(1 + r.IntN(223)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))})
		if !v4 {
			b := [16]byte{}
			for i := range b {
				b[i] = byte(r.IntN(256))
			}
			copy(b[:4], allocations[r.IntN(len(allocations))][:])
			a = netip.AddrFrom16(b)
		}
		at, bits := r.IntN(1000), 0
		for _, l := range lengths {
			if bits = l.bits; at < l.of1000 {
				break
			}
			at -= l.of1000
		}
		if p := netip.PrefixFrom(a, bits).Masked(); !seen[p] {
			seen[p] = true
			all = append(all, p)
		}
	}
	return all
}

// within are n random addresses, each in one of the prefixes.
func within(prefixes []netip.Prefix, n int) []packet.Addr {
	r := rand.New(rand.NewPCG(23, 24))
	all := make([]packet.Addr, n)
	for i := range all {
		p := prefixes[r.IntN(len(prefixes))]
		b := p.Addr().AsSlice()
		for k := p.Bits(); k < len(b)*8; k++ {
			b[k/8] |= byte(r.IntN(2)) << (7 - k%8)
		}
		a, _ := netip.AddrFromSlice(b)
		all[i] = packet.AddrFrom(a)
	}
	return all
}

// nowhere are n random addresses that no prefix of internet holds.
func nowhere(v4 bool, n int) []packet.Addr {
	r := rand.New(rand.NewPCG(25, 26))
	all := make([]packet.Addr, n)
	for i := range all {
		if v4 {
			all[i] = packet.AddrFrom4(0xe0000000 | r.Uint32()>>4)
			continue
		}
		for k := range all[i] {
			all[i][k] = byte(r.IntN(256))
		}
		all[i][0] = 0x30
	}
	return all
}

func sizeName(n int) string {
	if n >= 1_000_000 {
		return fmt.Sprintf("%dM", n/1_000_000)
	}
	return fmt.Sprintf("%dk", n/1000)
}

var families = []struct {
	name string
	v4   bool
}{{"ipv4", true}, {"ipv6", false}}

// BenchmarkLookup is family × prefixes × hit or miss, the adjacency included. A
// million random addresses: what they need is seldom in the processor's caches.
// Warm are hits of 4096 addresses, as when many connections go to the same
// places.
func BenchmarkLookup(b *testing.B) {
	const addrs = 1 << 20
	for _, f := range families {
		for _, n := range []int{1000, 100_000, 1_000_000} {
			prefixes := internet(f.v4, n)
			s := loaded(b, prefixes).Commit()
			for _, c := range []struct {
				name  string
				addrs []packet.Addr
			}{{"hit", within(prefixes, addrs)}, {"warm", within(prefixes, 4096)}, {"miss", nowhere(f.v4, addrs)}} {
				b.Run(fmt.Sprintf("%s/%s/%s", f.name, sizeName(n), c.name), func(b *testing.B) {
					b.ReportAllocs()
					found := 0
					for i := 0; b.Loop(); i++ {
						if _, adj := s.Find(&c.addrs[i&(len(c.addrs)-1)]); adj != nil && adj.Ready {
							found++
						}
					}
					if (found > 0) == (c.name == "miss") {
						b.Errorf("%d found", found)
					}
				})
			}
		}
	}
}

// BenchmarkBart is what bart's own tables take for the same addresses, without
// the adjacency: what the compiled routes are measured by.
func BenchmarkBart(b *testing.B) {
	type table interface {
		Insert(netip.Prefix, routed)
		Lookup(netip.Addr) (routed, bool)
	}
	const addrs, n = 1 << 20, 1_000_000
	for _, f := range families {
		prefixes := internet(f.v4, n)
		hit := within(prefixes, addrs)
		for name, t := range map[string]table{"table": new(bart.Table[routed]), "fast": new(bart.Fast[routed])} {
			kept := heapOf(func() any {
				for i, p := range prefixes {
					t.Insert(p, routed{adj: AdjID(i), bits: uint8(p.Bits())})
				}
				return t
			})
			b.Run(fmt.Sprintf("%s/1M/hit/%s", f.name, name), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					t.Lookup(unmapped(&hit[i&(addrs-1)]))
				}
				b.ReportMetric(float64(kept)/n, "B/route")
			})
		}
	}
}

// BenchmarkPublishDefault is a change of the default route: the widest there is.
func BenchmarkPublishDefault(b *testing.B) {
	for _, f := range families {
		b.Run(f.name+"/1M", func(b *testing.B) {
			table := loaded(b, internet(f.v4, 1_000_000))
			p := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			if f.v4 {
				p = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			}
			ids := [2]AdjID{table.AddAdjacency(Adjacency{}), table.AddAdjacency(Adjacency{})}
			for i := 0; b.Loop(); i++ {
				if err := table.SetRoute(Route{p, ids[i&1], ""}); err != nil {
					b.Fatal(err)
				}
				table.Commit()
			}
		})
	}
}

// BenchmarkPublish is one route added, or taken away, and a Commit.
func BenchmarkPublish(b *testing.B) {
	for _, f := range families {
		for _, n := range []int{1000, 100_000, 1_000_000} {
			b.Run(fmt.Sprintf("%s/%s", f.name, sizeName(n)), func(b *testing.B) {
				prefixes := internet(f.v4, n)
				table := loaded(b, prefixes)
				table.Commit()
				id := table.AddAdjacency(Adjacency{Kind: KindVXLAN})
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					p := prefixes[i/2%n]
					if i%2 == 0 {
						table.DeleteRoute(p)
					} else if err := table.SetRoute(Route{p, id, "culvert"}); err != nil {
						b.Fatal(err)
					}
					table.Commit()
				}
			})
		}
	}
}

// BenchmarkLoad fills an empty table and publishes it; B/route is what stays in
// the heap.
func BenchmarkLoad(b *testing.B) {
	for _, f := range families {
		for _, n := range []int{100_000, 1_000_000} {
			b.Run(fmt.Sprintf("%s/%s", f.name, sizeName(n)), func(b *testing.B) {
				prefixes := internet(f.v4, n)
				var kept uint64
				for b.Loop() {
					kept = heapOf(func() any { return loaded(b, prefixes).Commit() })
				}
				b.ReportMetric(float64(kept)/float64(n), "B/route")
			})
		}
	}
}

// heapOf is the memory that what f makes keeps, in bytes.
func heapOf(f func() any) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	kept := f()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	return after.HeapAlloc - before.HeapAlloc
}

// noise is by how much a test lets a time pass its goal: other programs run on
// the machine, and perhaps the race detector.
const noise = 4

// median is the middle one of the times that f takes.
func median(times int, f func(i int)) time.Duration {
	all := make([]time.Duration, times)
	for i := range all {
		start := time.Now()
		f(i)
		all[i] = time.Since(start)
	}
	slices.SortFunc(all, cmp.Compare)
	return all[times/2]
}

func TestMillionRoutes(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			const n = 1_000_000
			prefixes := internet(f.v4, n)
			var table *Table
			var took time.Duration
			kept := heapOf(func() any {
				start := time.Now()
				table = loaded(t, prefixes)
				table.Commit()
				took = time.Since(start)
				return table
			})
			t.Logf("loaded in %v, %d MB", took, kept>>20)
			if took > noise*2*time.Second {
				t.Errorf("a million routes took %v", took)
			}
			if kept > 150<<20 {
				t.Errorf("a million routes keep %d MB", kept>>20)
			}

			id := table.AddAdjacency(Adjacency{Kind: KindDirect})
			more := within(prefixes, 400)
			publish := median(len(more), func(i int) {
				p := hostPrefix(more[i].Netip())
				if i%2 == 0 {
					p = prefixes[i]
				}
				if err := table.SetRoute(Route{p, id, "culvert"}); err != nil {
					t.Fatal(err)
				}
				table.Commit()
			})
			t.Logf("one route published in %v", publish)
			if publish > noise*50*time.Microsecond {
				t.Errorf("one route among a million was published in %v", publish)
			}

			s := table.Commit()
			addrs := within(prefixes, 1<<18)
			find := func(int) {
				for i := range addrs {
					if _, adj := s.Find(&addrs[i]); adj == nil {
						t.Fatal("an address is not found")
					}
				}
			}
			ask := func(int) {
				for i := range addrs {
					if _, ok := s.routes.Lookup(unmapped(&addrs[i])); !ok {
						t.Fatal("an address is not found")
					}
				}
			}
			// Beside each other, since the machine's caches are not ours alone.
			var ours, bart []time.Duration
			for range 5 {
				ours, bart = append(ours, median(1, find)), append(bart, median(1, ask))
			}
			per := time.Duration(len(addrs))
			t.Logf("one lookup in %v, by bart in %v", slices.Min(ours)/per, slices.Min(bart)/per)
			if slices.Min(ours) > slices.Min(bart)*5/4 {
				t.Error("the compiled routes are slower than bart")
			}
		})
	}
}

func TestHundredThousandNeighbours(t *testing.T) {
	const n = 100_000
	table := NewTable()
	entry := func(i int) (FDBEntry, Neighbour) {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		mac := packet.MAC{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		return FDBEntry{VNI: 4096, MAC: mac, Dst: a, Flags: "self permanent"}, Neighbour{Addr: a, MAC: mac, Dev: "vxlan", State: "PERMANENT"}
	}
	kept := heapOf(func() any {
		for i := range n {
			e, nb := entry(i)
			table.SetFDB(e)
			table.SetNeighbour(nb)
		}
		return table.Commit()
	})
	t.Logf("%d bytes an entry of both tables", kept/n)
	for name, set := range map[string]func(i int){
		"FDB":        func(i int) { e, _ := entry(i); e.Dst = netip.AddrFrom4([4]byte{11, 1, 1, 1}); table.SetFDB(e) },
		"neighbours": func(i int) { _, nb := entry(i); nb.MAC[0] = 6; table.SetNeighbour(nb) },
	} {
		publish := median(400, func(i int) {
			set(i * 200)
			table.Commit()
		})
		t.Logf("%s: one entry published in %v", name, publish)
		if publish > noise*50*time.Microsecond {
			t.Errorf("%s: one among a hundred thousand was published in %v", name, publish)
		}
	}
	s := table.Commit()
	if e, ok := s.FDBEntry(4096, packet.MAC{2, 0, 0, 0, 0, 200}); !ok || e.Dst.As4()[0] != 11 {
		t.Errorf("entry %+v, %v", e, ok)
	}
}
