package fib

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"culvert/internal/packet"
)

// manyPrefixes are n different prefixes of one family, of the lengths that
// routing tables mostly have.
func manyPrefixes(r *rand.Rand, v4 bool, n int) []netip.Prefix {
	lengths4 := []int{16, 20, 22, 23, 24, 24, 24, 24, 26, 32}
	lengths6 := []int{32, 40, 44, 48, 48, 48, 56, 64, 64, 128}
	seen := make(map[netip.Prefix]bool, n)
	all := make([]netip.Prefix, 0, n)
	for len(all) < n {
		var p netip.Prefix
		if v4 {
			p = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(1 + r.IntN(220)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}), lengths4[r.IntN(10)])
		} else {
			b := [16]byte{0x20, byte(r.IntN(32))}
			for i := 2; i < 16; i++ {
				b[i] = byte(r.IntN(256))
			}
			p = netip.PrefixFrom(netip.AddrFrom16(b), lengths6[r.IntN(10)])
		}
		if p = p.Masked(); !seen[p] {
			seen[p] = true
			all = append(all, p)
		}
	}
	return all
}

// loaded is a table with those prefixes, spread over 100 adjacencies.
func loaded(tb testing.TB, prefixes []netip.Prefix) *Table {
	tb.Helper()
	table := NewTable()
	var ids [100]AdjID
	for i := range ids {
		ids[i] = table.AddAdjacency(Adjacency{Kind: KindVXLAN, Ready: true, MTU: 1450})
	}
	for i, p := range prefixes {
		if err := table.SetRoute(Route{p, ids[i%100], "culvert"}); err != nil {
			tb.Fatal(err)
		}
	}
	return table
}

func TestLookupDoesNotAllocate(t *testing.T) {
	table := loaded(t, manyPrefixes(rand.New(rand.NewPCG(5, 6)), true, 1000))
	s := table.Commit()
	a := packet.AddrFrom(netip.MustParseAddr("10.1.2.3"))
	if n := testing.AllocsPerRun(100, func() {
		s.Lookup(a)
		s.Find(&a)
		s.FindFlow(&packet.Key{Dst: a})
		s.IsPeer(a)
		s.Adjacency(1)
	}); n != 0 {
		t.Errorf("%v allocations a lookup", n)
	}
}

// TestReadersBesideTheWriter is for the race detector: snapshots are read while
// later ones are made from the same memory.
func TestReadersBesideTheWriter(t *testing.T) {
	table := loaded(t, manyPrefixes(rand.New(rand.NewPCG(7, 8)), true, 500))
	snapshots := make(chan *Snapshot, 8)
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for s := range snapshots {
				n := 0
				for r := range s.Routes() {
					if _, adj, ok := s.Lookup(packet.AddrFrom(r.Prefix.Addr())); !ok || adj == nil {
						t.Errorf("no route in %s", r.Prefix)
					}
					n++
				}
				if n != s.RouteCount() {
					t.Errorf("%d routes of %d", n, s.RouteCount())
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(9, 10))
	for i := range 60 {
		id := table.AddAdjacency(Adjacency{Kind: KindPod, Port: uint16(i)})
		for range 1 + r.IntN(3)*60 {
			p := nodePrefix(r)
			if err := table.SetRoute(Route{p, id, "culvert"}); err != nil {
				t.Error(err)
			}
			table.SetFDB(FDBEntry{VNI: r.Uint32N(10), Dst: p.Addr()})
			table.SetNeighbour(Neighbour{Addr: p.Addr(), Dev: "eth0"})
			table.DeleteRoute(nodePrefix(r))
		}
		table.RemoveAdjacency(id)
		snapshots <- table.Commit()
	}
	close(snapshots)
	readers.Wait()
}
