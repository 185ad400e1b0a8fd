package flow

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"culvert/internal/packet"
)

// keyOf is the key of the n-th connection of a node with many pods.
func keyOf(n int) packet.Key {
	return packet.Key{
		Src: packet.AddrFrom4(0x0a_01_00_00 + uint32(n)%110), Dst: packet.AddrFrom4(0x0a_01_01_00 + uint32(n/110)%4096),
		SrcPort: uint16(32768 + n%28231), DstPort: uint16(80 + n/450_000), Proto: packet.ProtoTCP, Family: 4,
	}
}

// filled is a table of n established flows, and their keys in random order.
func filled(tb testing.TB, capacity, n int) (*Table, []packet.Key) {
	tb.Helper()
	t, err := New(capacity)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { t.Close() })
	t.Quiesce(0)
	keys := make([]packet.Key, n)
	for i := range keys {
		keys[i] = keyOf(i)
		reply := keys[i].Reverse()
		e, dir, ok := insert(t, &keys[i], &reply, 1)
		if !ok || dir != Original {
			tb.Fatalf("insert %d failed", i)
		}
		establish(e, 1)
	}
	rand.Shuffle(n, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return t, keys
}

var flowCounts = []int{1_000, 10_000, 100_000, 1_000_000}

func BenchmarkLookup(b *testing.B) {
	for _, n := range flowCounts {
		t, keys := filled(b, n, n)
		other := make([]packet.Key, len(keys))
		for i := range keys {
			other[i] = keys[i]
			other[i].Zone = 1
		}
		hashes := make([]uint64, len(keys))
		for _, c := range []struct {
			name string
			keys []packet.Key
			hit  bool
		}{{"hit", keys, true}, {"miss", other, false}} {
			for i := range c.keys {
				hashes[i] = c.keys[i].Hash()
			}
			b.Run(fmt.Sprintf("%s/flows=%d", c.name, n), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if _, _, ok := t.Lookup(&c.keys[i], hashes[i]); ok != c.hit {
						b.Fatal("wrong answer")
					}
					if i++; i == len(c.keys) {
						i = 0
					}
				}
			})
		}
	}
}

func BenchmarkTouch(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		t, keys := filled(b, n, n)
		entries := make([]*Entry, n)
		for i := range keys {
			entries[i], _, _ = t.Lookup(&keys[i], keys[i].Hash())
		}
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			h := [2][]byte{keepOn(Original), keepOn(Reply)}
			info := tcpInfo(h[0], 0)
			for _, e := range entries { // the second's first packet
				e.Touch(Original, &info, h[0], 1500, 1, 2)
			}
			i := 0
			for b.Loop() {
				if entries[i].Touch(Direction(i&1), &info, h[i&1], 1500, 1, 2) != Pass {
					b.Fatal("invalid")
				}
				if i++; i == n {
					i = 0
				}
			}
		})
	}
}

// BenchmarkInsert is the life of a flow: inserted, begun, and evicted by a
// later one, in a full table of embryonic flows.
func BenchmarkInsert(b *testing.B) {
	for _, n := range flowCounts {
		b.Run(fmt.Sprintf("evict/flows=%d", n), func(b *testing.B) {
			t, err := New(n)
			if err != nil {
				b.Fatal(err)
			}
			defer t.Close()
			b.ReportAllocs()
			h := tcpHeader(1, 0, 8192, tcpSYN)
			info := tcpInfo(h, 0)
			key := keyOf(0)
			for i := 0; b.Loop(); i++ {
				key.Src = packet.AddrFrom4(uint32(i) * 2654435761)
				reply := key.Reverse()
				e, _, ok := insert(t, &key, &reply, 1)
				if !ok {
					b.Fatal("table full")
				}
				e.Touch(Original, &info, h, 60, 1, 1)
				if i%32 == 0 {
					t.Quiesce(0)
				}
			}
			b.ReportMetric(float64(memorySize(n))/float64(n), "B/flow")
		})
	}
}

func BenchmarkQuiesce(b *testing.B) {
	t, _ := filled(b, 1, 1)
	for b.Loop() {
		t.Quiesce(0)
	}
}

var sink uint32

// BenchmarkBurst is what a worker does with a burst of established flows: all
// lookups, then all Touches. Per packet.
func BenchmarkBurst(b *testing.B) {
	for _, n := range flowCounts {
		t, keys := filled(b, n, n)
		hashes := make([]uint64, len(keys))
		for i := range keys {
			hashes[i] = keys[i].Hash()
		}
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			h := keepOn(Original)
			info := tcpInfo(h, 0)
			for i := range keys { // the second's first packet
				e, _, _ := t.Lookup(&keys[i], hashes[i])
				e.Touch(Original, &info, h, 1500, 1, 2)
			}
			b.ResetTimer()
			var heat uint32
			defer func() { sink = heat }()
			var entries [32]*Entry
			at := 0
			for i := 0; i < b.N; i += len(entries) {
				if at+len(entries) > len(keys) {
					at = 0
				}
				for j := range entries {
					entries[j], _, _ = t.Lookup(&keys[at+j], hashes[at+j])
					heat ^= entries[j].Warm(true)
				}
				for j := range entries {
					entries[j].Touch(Original, &info, h, 1500, 1, 2)
				}
				at += len(entries)
				t.Quiesce(0)
			}
		})
	}
}
