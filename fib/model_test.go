package fib

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"culvert/internal/packet"
)

// model is the obviously right table: a list of routes, searched from end to end.
type model []Route

func (m *model) set(r Route) {
	m.delete(r.Prefix)
	*m = append(*m, r)
}

func (m *model) delete(p netip.Prefix) bool {
	n := len(*m)
	*m = slices.DeleteFunc(*m, func(r Route) bool { return r.Prefix == p })
	return len(*m) < n
}

func (m model) lookup(a netip.Addr) (best Route, ok bool) {
	for _, r := range m {
		if r.Prefix.Contains(a) && (!ok || r.Prefix.Bits() > best.Prefix.Bits()) {
			best, ok = r, true
		}
	}
	return best, ok
}

// anyPrefix is a prefix of any length; the addresses are few, so that prefixes
// nest and meet.
func anyPrefix(r *rand.Rand) netip.Prefix {
	if r.IntN(2) == 0 {
		return netip.PrefixFrom(anyAddr(r, true), r.IntN(33)).Masked()
	}
	return netip.PrefixFrom(anyAddr(r, false), r.IntN(129)).Masked()
}

func anyAddr(r *rand.Rand, v4 bool) netip.Addr {
	few := func() byte { return []byte{0, 1, 10, 127, 128, 255}[r.IntN(6)] }
	if v4 {
		return netip.AddrFrom4([4]byte{few(), few(), few(), few()})
	}
	var b [16]byte
	for i := range b {
		b[i] = few()
	}
	b[0] = 0x20
	return netip.AddrFrom16(b)
}

// nodePrefix is a prefix as a cluster has them: pod networks of nodes, addresses
// of pods, a default route now and then.
func nodePrefix(r *rand.Rand) netip.Prefix {
	v4 := netip.AddrFrom4([4]byte{10, byte(200 + r.IntN(4)), byte(r.IntN(256)), byte(r.IntN(110))})
	v6 := netip.AddrFrom16([16]byte{0xfd, 0, 0, 1, 0, 0, 0, byte(r.IntN(256)), 15: byte(r.IntN(110))})
	switch r.IntN(20) {
	case 0:
		return netip.PrefixFrom(v4, 0).Masked()
	case 1:
		return netip.PrefixFrom(v6, 0).Masked()
	case 2, 3, 4, 5:
		return netip.PrefixFrom(v4, 24).Masked()
	case 6, 7, 8, 9:
		return netip.PrefixFrom(v6, 64).Masked()
	case 10, 11:
		return netip.PrefixFrom(v4, 26).Masked()
	case 12, 13:
		return netip.PrefixFrom(v6, 122).Masked()
	case 14, 15, 16:
		return netip.PrefixFrom(v4, 32)
	}
	return netip.PrefixFrom(v6, 128)
}

// inside is an address in p, or next to it.
func inside(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for range r.IntN(3) {
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestLookupAgainstModel(t *testing.T) {
	for name, prefix := range map[string]func(*rand.Rand) netip.Prefix{"any": anyPrefix, "nodes": nodePrefix} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			table := NewTable()
			ids := make([]AdjID, 16)
			for i := range ids {
				ids[i] = table.AddAdjacency(Adjacency{Kind: KindDirect, Port: uint16(i)})
			}
			var m model
			type moment struct {
				snap *Snapshot
				m    model
			}
			var past []moment
			for range 120 {
				// A few changes, and now and then so many that the table
				// is copied as a whole.
				changes := 1 + r.IntN(4)
				if r.IntN(50) == 0 {
					changes = 300
				}
				for range changes {
					p := prefix(r)
					if r.IntN(3) == 0 {
						if got, want := table.DeleteRoute(p), m.delete(p); got != want {
							t.Fatalf("DeleteRoute(%s) = %v, want %v", p, got, want)
						}
						continue
					}
					route := Route{p, ids[r.IntN(len(ids))], []string{"culvert", "kernel"}[r.IntN(2)]}
					if err := table.SetRoute(route); err != nil {
						t.Fatal(err)
					}
					m.set(route)
				}
				past = append(past, moment{table.Commit(), slices.Clone(m)})
				// The new snapshot, and an old one: it must not have changed.
				for _, at := range []moment{past[len(past)-1], past[r.IntN(len(past))]} {
					compare(t, r, at.snap, at.m, prefix)
				}
			}
		})
	}
}

func compare(t *testing.T, r *rand.Rand, s *Snapshot, m model, prefix func(*rand.Rand) netip.Prefix) {
	t.Helper()
	for range 20 {
		a := inside(r, prefix(r))
		want, wantOK := m.lookup(a)
		got, adj, ok := s.Lookup(packet.AddrFrom(a))
		if ok != wantOK || got != want {
			t.Fatalf("generation %d: Lookup(%s) = %v, %v, want %v, %v", s.Gen(), a, got, ok, want, wantOK)
		}
		if ok && (adj == nil || adj != s.Adjacency(got.Adj)) {
			t.Fatalf("Lookup(%s): adjacency %p, want %p", a, adj, s.Adjacency(got.Adj))
		}
		pa := packet.AddrFrom(a)
		if id, found := s.Find(&pa); id != want.Adj || found != adj {
			t.Fatalf("Find(%s) = %d, %p, want %d, %p", a, id, found, want.Adj, adj)
		}
	}
	sorted := slices.Clone(m)
	slices.SortFunc(sorted, func(a, b Route) int {
		if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
			return c
		}
		return a.Prefix.Bits() - b.Prefix.Bits()
	})
	if got := slices.Collect(s.Routes()); !slices.Equal(got, sorted) {
		t.Fatalf("generation %d: Routes() = %v, want %v", s.Gen(), got, sorted)
	}
	if s.RouteCount() != len(m) {
		t.Fatalf("RouteCount() = %d, want %d", s.RouteCount(), len(m))
	}
}
