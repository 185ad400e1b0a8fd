package fib

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"culvert/internal/packet"
)

// flows are n keys towards one prefix.
func flows(n int) []packet.Key {
	r := rand.New(rand.NewPCG(11, 12))
	all := make([]packet.Key, n)
	for i := range all {
		all[i] = packet.Key{
			Src: packet.AddrFrom4(r.Uint32()), Dst: packet.AddrFrom4(0x0a010200 | r.Uint32()&0xff),
			SrcPort: uint16(r.Uint32()), DstPort: 443, Proto: packet.ProtoTCP, Family: 4,
		}
	}
	return all
}

// grouped is a table with a route to a group of adjacencies of these weights,
// whose ports are 0, 1, …
func grouped(t *testing.T, weights ...uint16) (*Table, AdjID, []Member) {
	t.Helper()
	table := NewTable()
	members := make([]Member, len(weights))
	for i, w := range weights {
		members[i] = Member{table.AddAdjacency(Adjacency{Kind: KindVXLAN, Ready: true, Port: uint16(i)}), w}
	}
	id, err := table.AddGroup(members)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.SetRoute(Route{Prefix: prefix("10.1.2.0/24"), Adj: id}); err != nil {
		t.Fatal(err)
	}
	return table, id, members
}

// choices are the members that the flows are sent to.
func choices(t *testing.T, s *Snapshot, keys []packet.Key) []AdjID {
	t.Helper()
	all := make([]AdjID, len(keys))
	for i := range keys {
		id, adj := s.FindFlow(&keys[i])
		if adj == nil || adj != s.Adjacency(id) {
			t.Fatalf("flow %v: adjacency %#x is %p, want %p", keys[i], uint32(id), adj, s.Adjacency(id))
		}
		all[i] = id
	}
	return all
}

func TestGroupSharesByWeight(t *testing.T) {
	for _, weights := range [][]uint16{{1}, {1, 1}, {1, 1, 1}, {3, 1}, {10, 20, 30, 40}, {256, 1}, {1, 1, 1, 1, 1, 1, 1}} {
		table, id, members := grouped(t, weights...)
		s := table.Commit()
		total, sum := 0, 0
		for _, w := range weights {
			total += int(w)
		}
		got := map[AdjID]int{}
		for _, id := range choices(t, s, flows(20000)) {
			got[id]++
		}
		for i, share := range s.Members(id) {
			exact := float64(Buckets) * float64(weights[i]) / float64(total)
			if share.Member != members[i] || share.Port != uint16(i) || float64(share.Buckets) <= exact-1 || float64(share.Buckets) >= exact+1 {
				t.Errorf("weights %v: member %d is %+v with %d buckets, want %.1f", weights, i, share.Member, share.Buckets, exact)
			}
			sum += share.Buckets
			// The hash is keyed anew in every process: five standard deviations.
			want := 20000 * float64(share.Buckets) / Buckets
			if n := got[members[i].Adj]; math.Abs(float64(n)-want) > 5*math.Sqrt(want) {
				t.Errorf("weights %v: member %d has %d of 20000 flows, want about %.0f", weights, i, n, want)
			}
		}
		if sum != Buckets {
			t.Errorf("weights %v: %d buckets", weights, sum)
		}
	}
}

func TestBothDirectionsAreInOneBucket(t *testing.T) {
	used := [Buckets]bool{}
	for _, k := range flows(4000) {
		back := k.Reverse()
		if bucketOf(&k) != bucketOf(&back) {
			t.Fatalf("%v is in bucket %d, its reverse in %d", k, bucketOf(&k), bucketOf(&back))
		}
		used[bucketOf(&k)] = true
	}
	if i := slices.Index(used[:], false); i >= 0 {
		t.Errorf("no flow of 4000 is in bucket %d", i)
	}
}

// moved counts the flows that changed their member, and those among them that
// did not come from or go to one of the members given.
func moved(before, after []AdjID, about ...AdjID) (all, others int) {
	for i := range before {
		if before[i] == after[i] {
			continue
		}
		all++
		if !slices.Contains(about, before[i]) && !slices.Contains(about, after[i]) {
			others++
		}
	}
	return all, others
}

func TestMemberLeavesAndJoins(t *testing.T) {
	for _, weights := range [][]uint16{{1, 1}, {1, 1, 1, 1, 1}, {5, 3, 2, 2}, {1, 256, 256, 255}, {7, 11, 13, 17, 19, 23, 29, 31}} {
		for victim := range weights {
			table, id, members := grouped(t, weights...)
			keys := flows(8000)
			before := choices(t, table.Commit(), keys)
			his := 0
			for _, a := range before {
				if a == members[victim].Adj {
					his++
				}
			}
			rest := slices.Delete(slices.Clone(members), victim, victim+1)
			if err := table.UpdateGroup(id, rest); err != nil {
				t.Fatal(err)
			}
			s := table.Commit()
			after := choices(t, s, keys)
			if all, others := moved(before, after, members[victim].Adj); all != his || others != 0 {
				t.Errorf("weights %v: member %d with %d flows left and %d moved, %d of them not its own", weights, victim, his, all, others)
			}
			if err := table.UpdateGroup(id, members); err != nil {
				t.Fatal(err)
			}
			back := choices(t, table.Commit(), keys)
			now := 0
			for _, a := range back {
				if a == members[victim].Adj {
					now++
				}
			}
			// Those that moved all went to it, and they are its share.
			if all, others := moved(after, back, members[victim].Adj); all != now || others > 0 {
				t.Errorf("weights %v: member %d got %d flows and %d moved, %d of them elsewhere", weights, victim, now, all, others)
			}
			if again := choices(t, s, keys); !slices.Equal(again, after) {
				t.Errorf("weights %v: a snapshot changed", weights)
			}
		}
	}
}

// However members come, go and change their weights, a change moves no more
// buckets than it must, and shares stay what the weights say.
func TestGroupsAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	table := NewTable()
	pool := make([]AdjID, 20)
	for i := range pool {
		pool[i] = table.AddAdjacency(Adjacency{Kind: KindDirect, Port: uint16(i)})
	}
	now := []Member{{pool[0], 1}}
	id, err := table.AddGroup(now)
	if err != nil {
		t.Fatal(err)
	}
	owners := func() [Buckets]AdjID { return table.adjs.view.entry(id).group.buckets }
	for step := range 3000 {
		next, onlyLeft := slices.Clone(now), false
		switch n := r.IntN(len(next)); {
		case r.IntN(3) == 0 && len(next) > 1:
			next, onlyLeft = slices.Delete(next, n, n+1), true
		case r.IntN(2) == 0:
			next[n].Weight = uint16(1 + r.IntN(30))
		default:
			m := Member{pool[r.IntN(len(pool))], uint16(1 + r.IntN(30))}
			if slices.ContainsFunc(next, func(o Member) bool { return o.Adj == m.Adj }) {
				continue
			}
			next = append(next, m)
		}
		before := owners()
		if err := table.UpdateGroup(id, next); err != nil {
			t.Fatal(err)
		}
		after := owners()
		total, count, lost := 0, map[AdjID]int{}, map[AdjID]int{}
		for _, m := range next {
			total += int(m.Weight)
		}
		for b := range after {
			count[after[b]]++
			if before[b] != after[b] {
				lost[before[b]]++
			}
		}
		for _, m := range next {
			exact := float64(Buckets) * float64(m.Weight) / float64(total)
			if n := float64(count[m.Adj]); n >= exact+1 || !onlyLeft && n <= exact-1 || n <= exact-2 {
				t.Fatalf("step %d: %v of %v has %v buckets, want %.2f", step, m, next, n, exact)
			}
			wasMine := slices.ContainsFunc(now, func(o Member) bool { return o.Adj == m.Adj })
			if onlyLeft && wasMine && lost[m.Adj] > 0 {
				t.Fatalf("step %d: another one left and %v lost %d buckets", step, m, lost[m.Adj])
			}
			delete(count, m.Adj)
		}
		if len(count) > 0 {
			t.Fatalf("step %d: buckets lead to %v", step, count)
		}
		now = next
	}
}

func TestGroupMistakesChangeNothing(t *testing.T) {
	table, id, members := grouped(t, 1, 2)
	want := table.Commit()
	gone := table.AddAdjacency(Adjacency{})
	table.RemoveAdjacency(gone)
	last := table.Commit()
	many := make([]Member, MaxMembers+1)
	for name, bad := range map[string][]Member{
		"none": {}, "too many": many, "weight 0": {{members[0].Adj, 0}}, "weight 257": {{members[0].Adj, 257}},
		"twice": {members[0], members[0]}, "gone": {{gone, 1}}, "a group": {{id, 1}}, "nothing": {{0, 1}},
	} {
		if _, err := table.AddGroup(bad); err == nil {
			t.Errorf("%s: AddGroup took it", name)
		}
		if err := table.UpdateGroup(id, bad); err == nil {
			t.Errorf("%s: UpdateGroup took it", name)
		}
	}
	if table.UpdateGroup(members[0].Adj, members) == nil || table.UpdateGroup(gone, members) == nil {
		t.Error("what is no group was updated as one")
	}
	if table.UpdateAdjacency(id, Adjacency{}) {
		t.Error("a group was updated as an adjacency")
	}
	if table.Commit() != last {
		t.Error("mistakes changed the tables")
	}
	if !slices.Equal(choices(t, last, flows(500)), choices(t, want, flows(500))) {
		t.Error("mistakes moved flows")
	}
	if err := table.UpdateGroup(id, members); err != nil || table.Commit() != last {
		t.Error("the same members are a change")
	}
}

func TestMembersLiveAsLongAsTheirGroup(t *testing.T) {
	table, id, members := grouped(t, 1, 1)
	for _, m := range members {
		table.RemoveAdjacency(m.Adj)
	}
	table.RemoveAdjacency(id)
	s := table.Commit()
	if got := len(s.Members(id)); got != 2 {
		t.Fatalf("the route's group has %d members", got)
	}
	choices(t, s, flows(100))
	table.DeleteRoute(prefix("10.1.2.0/24"))
	after := table.Commit()
	for _, gone := range []AdjID{id, members[0].Adj, members[1].Adj} {
		if after.Adjacency(gone) != nil || after.Members(gone) != nil {
			t.Errorf("%#x is there without a route", uint32(gone))
		}
	}
	choices(t, s, flows(100)) // the old snapshot has it all
}

func TestFindOfAGroup(t *testing.T) {
	table, id, members := grouped(t, 1, 1)
	a := packet.AddrFrom(netip.MustParseAddr("10.1.2.3"))
	table.UpdateAdjacency(members[1].Adj, Adjacency{Kind: KindVXLAN, Peer: 7})
	s := table.Commit()
	if got, adj := s.Find(&a); got != members[0].Adj || adj.Port != 0 {
		t.Errorf("Find is %#x, want the first member", uint32(got))
	}
	if r, adj, ok := s.Lookup(a); !ok || r.Adj != id || adj != s.Adjacency(members[0].Adj) {
		t.Errorf("Lookup is %v, %v, %v", r, adj, ok)
	}
	if !s.ViaPeer(&a, 7) || s.ViaPeer(&a, 8) || s.ViaPeer(&packet.Addr{}, 7) {
		t.Error("ViaPeer")
	}
	if s.Members(members[0].Adj) != nil || s.Members(0) != nil {
		t.Error("what is no group has members")
	}
	k := packet.Key{Dst: a, Family: 4}
	if n := testing.AllocsPerRun(100, func() { s.FindFlow(&k); s.ViaPeer(&a, 7) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
