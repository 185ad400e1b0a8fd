package packet_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"culvert/internal/packet"
)

// bigMerge merges two frames that are groups already, in segments of sizes[0] and
// sizes[1], into an IP packet of most bytes. ok says whether the second continues the first.
func bigMerge(t *testing.T, a, b merged, most int) (out merged, m packet.Merge, ok bool) {
	t.Helper()
	var ia, ib packet.Info
	for _, p := range []struct {
		f    []byte
		info *packet.Info
	}{{a.frame, &ia}, {b.frame, &ib}} {
		if r := packet.Parse(p.f, len(p.f), p.info); r != 0 {
			t.Fatal(r)
		}
	}
	group := slices.Clone(a.frame)
	if !m.StartBig(group[14:], &ia, a.size, most) || m.Closed() || !m.AddBig(group[14:], b.frame[14:], &ib, b.size) {
		return merged{}, m, false
	}
	group = append(group, b.frame[ib.Payload:]...)
	m.Finish(group[14:])
	return merged{frame: group, segments: m.Segments(), size: m.Size()}, m, true
}

// Two groups that follow each other merge into what all of their segments would
// have merged into.
func TestGroupsMergeAsTheirSegments(t *testing.T) {
	for _, kind := range kinds[:2] {
		for _, n := range []int{4, 7, 20} {
			for split := 2; split < n-1; split++ {
				for _, last := range []int{1000, 999, 1} {
					t.Run(fmt.Sprintf("%s/%d/%d/%d", kind, n, split, last), func(t *testing.T) {
						segs := kind.flow(n, 1000)
						segs[n-1].size, segs[n-1].flags = last, "AP"
						frames := make([][]byte, n)
						for i, s := range segs {
							frames[i] = s.frame(t)
						}
						want := mergeAll(t, frames)[0]
						a, b := mergeAll(t, frames[:split])[0], mergeAll(t, frames[split:])[0]
						got, _, ok := bigMerge(t, a, b, 65535)
						if !ok || got.segments != want.segments || got.size != want.size || !bytes.Equal(got.frame, want.frame) {
							t.Errorf("%v, got %s\nwant %s", ok, got, want)
						}
					})
				}
			}
		}
	}
}

// What two groups must agree in, and what is no obstacle.
func TestGroupsThatDoNotMerge(t *testing.T) {
	for name, c := range map[string]struct {
		v6     bool
		change func(a, b []seg)
		sizeB  int // what the second is to be cut into, if not 1000
		most   int
		want   bool
	}{
		"they follow each other":           {want: true},
		"PSH between them":                 {want: true, change: func(a, _ []seg) { a[len(a)-1].flags = "AP" }},
		"FIN between them":                 {change: func(a, _ []seg) { a[len(a)-1].flags = "AF" }},
		"FIN at the end":                   {want: true, change: func(_, b []seg) { b[len(b)-1].flags = "AF" }},
		"the first is short":               {change: func(a, b []seg) { a[len(a)-1].size--; b[0].seq--; b[1].seq-- }},
		"a gap":                            {change: func(_, b []seg) { b[0].seq++; b[1].seq++ }},
		"another acknowledgment":           {change: func(_, b []seg) { b[0].ack++; b[1].ack++ }},
		"another window":                   {change: func(_, b []seg) { b[0].window++; b[1].window++ }},
		"another time stamp":               {change: func(_, b []seg) { b[0].options, b[1].options = stamp(3, 4), stamp(3, 4) }},
		"another identification":           {change: func(_, b []seg) { b[0].id++; b[1].id++ }},
		"another TTL":                      {change: func(_, b []seg) { b[0].ttl--; b[1].ttl-- }},
		"another hop limit":                {v6: true, change: func(_, b []seg) { b[0].ttl--; b[1].ttl-- }},
		"segments of another size":         {sizeB: 500},
		"more than the device takes":       {most: 4000},
		"just what the device takes":       {most: 5000 + 20 + 32, want: true},
		"one byte more than it takes":      {most: 5000 + 20 + 31},
		"IPv6, which follow each other":    {v6: true, want: true},
		"IPv6, with more room than needed": {v6: true, most: 200_000, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			kind := kinds[0]
			if c.v6 {
				kind = kinds[1]
			}
			segs := kind.flow(5, 1000)
			if c.change != nil {
				c.change(segs[:3], segs[3:])
			}
			var groups [2]merged
			for i, part := range [][]seg{segs[:3], segs[3:]} {
				var frames [][]byte
				for _, s := range part {
					frames = append(frames, s.frame(t))
				}
				groups[i] = mergeAll(t, frames)[0]
			}
			if c.sizeB != 0 {
				groups[1].size = c.sizeB
			}
			if c.most == 0 {
				c.most = 65535
			}
			if _, _, ok := bigMerge(t, groups[0], groups[1], c.most); ok != c.want {
				t.Errorf("merged: %v, want %v", ok, c.want)
			}
		})
	}
}

// Beyond 64 KB the IPv4 header says 0, and IPv6 packets do not go.
func TestGroupsBeyond64K(t *testing.T) {
	for _, kind := range kinds[:2] {
		segs := kind.flow(80, 1000)
		var groups [2]merged
		for i, part := range [][]seg{segs[:40], segs[40:]} {
			var frames [][]byte
			for _, s := range part {
				frames = append(frames, s.frame(t))
			}
			groups[i] = mergeAll(t, frames)[0]
		}
		got, m, ok := bigMerge(t, groups[0], groups[1], 256<<10)
		if ok == kind.v6 {
			t.Errorf("%s: merged: %v", kind, ok)
		}
		if !ok {
			continue
		}
		ip := packet.IPv4(got.frame[14:])
		if total := binary.BigEndian.Uint16(ip[2:]); total != 0 || !ip.CheckOK() || m.Len() != 80_000 || m.Segments() != 80 {
			t.Errorf("total length %d, header checksum right %v, %d bytes in %d segments", total, ip.CheckOK(), m.Len(), m.Segments())
		}
	}
}
