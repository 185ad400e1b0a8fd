package packet_test

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"culvert/internal/packet"

	"golang.org/x/sys/unix"
)

// holdTime is how long v1 keeps what it may still merge.
const holdTime = 4 * time.Millisecond

// Merge against Linux's GRO. The packets go one by one through a veth whose end
// merges, and holds what it merged until a timer fires (gro_flush_timeout and
// napi_defer_hard_irqs of Documentation/networking/napi.rst); a packet socket
// there sees what the stack would, in a virtio_net_hdr the gso_size and type.
func TestMergeAgainstLinux(t *testing.T) {
	v := newVeth(t,
		"ethtool -K v0 tso off tx-udp-segmentation off",
		"ethtool -K v1 gro on rx-udp-gro-forwarding on",
		fmt.Sprintf(`unshare -m sh -ec 'mount -t sysfs sysfs /sys
			echo %d > /sys/class/net/v1/gro_flush_timeout
			echo 1 > /sys/class/net/v1/napi_defer_hard_irqs'`, holdTime.Nanoseconds()))
	cases := mergeCases()
	merges := 0
	for batch := range mergeBatches(cases) {
		merges += v.compareMerges(batch)
	}
	t.Logf("%d flows, %d of them merged", len(cases), merges)
	if merges < len(cases)/4 {
		t.Error("too few merges to prove anything")
	}
}

// mergeBatches are flows to send at once. Linux holds 8 in each of its lists
// (MAX_GRO_SKBS, net/core/gro.c), and nothing once a poll has used its budget of
// 64 packets up. Cases that an older kernel sees otherwise are left out there.
func mergeBatches(cases []mergeCase) iter.Seq[[]mergeCase] {
	const flows, packets, bytes = 8, 64, 90_000 // as many bytes as are sent in time
	newest := newestRules()
	return func(yield func([]mergeCase) bool) {
		var batch []mergeCase
		n, size := 0, 0
		for _, c := range cases {
			if c.newest && !newest {
				continue
			}
			more := 0
			for _, s := range c.segs {
				more += s.size
			}
			if n > 0 && (len(batch) == flows || n+len(c.segs) > packets || size+more > bytes) {
				if !yield(batch) {
					return
				}
				batch, n, size = nil, 0, 0
			}
			batch = append(batch, c)
			n += len(c.segs)
			size += more
		}
		if n > 0 {
			yield(batch)
		}
	}
}

// newestRules reports whether the kernel is 6.18 or later.
func newestRules() bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 18
}

// compareMerges sends flows' packets and compares what arrives with ours. It
// returns how many flows were merged.
func (v *veth) compareMerges(cases []mergeCase) (merges int) {
	v.t.Helper()
	flows := make([][][]byte, len(cases))
	n := 0
	for i, c := range cases {
		for _, s := range c.segs {
			s.port = uint16(i)
			flows[i] = append(flows[i], s.frame(v.t))
			n++
		}
	}
	want := make([][]merged, len(cases))
	for i := range cases {
		want[i] = mergeAll(v.t, flows[i])
		if len(want[i]) < len(flows[i]) {
			merges++
		}
	}
	// A clock tick in the middle of a poll ends groups early: what counts is
	// what happens every time.
	const tries = 5
	differ, inTime := "", 0
	for range 20 * tries {
		got, ok := v.sendFlows(flows, n)
		if !ok {
			continue
		}
		if differ = differences(cases, got, want); differ == "" {
			return merges
		}
		if inTime++; inTime == tries {
			break
		}
	}
	v.t.Errorf("sent in time %d times, and always %s", inTime, differ)
	return merges
}

// sendFlows sends n frames and returns what came of each flow. inTime tells that
// the timer fired once at most meanwhile: there were two polls, and what the
// first held was there in the second.
func (v *veth) sendFlows(flows [][][]byte, n int) (got [][]merged, inTime bool) {
	v.t.Helper()
	start := time.Now()
	for _, flow := range flows {
		for _, f := range flow {
			v.send(f, vnetHdr{})
		}
	}
	inTime = time.Since(start) < holdTime
	return v.receiveMerged(n, len(flows)), inTime
}

// differences says where Linux's flows and ours differ, or nothing.
func differences(cases []mergeCase, got, want [][]merged) (all string) {
	for i, c := range cases {
		g, w := got[i], want[i]
		if c.anyOrder {
			order := func(a, b merged) int { return bytes.Compare(a.frame, b.frame) }
			slices.SortFunc(g, order)
			slices.SortFunc(w, order)
		}
		equal := func(a, b merged) bool {
			return bytes.Equal(a.frame, b.frame) && a.size == b.size && a.segments == b.segments
		}
		if !slices.EqualFunc(g, w, equal) {
			all += fmt.Sprintf("%s: from Linux come\n%v\nours are\n%v\n", c.name, g, w)
		}
	}
	return all
}

// receiveMerged reads frames until they hold n segments, and sorts them by flow.
func (v *veth) receiveMerged(n, flows int) [][]merged {
	v.t.Helper()
	all := make([][]merged, flows)
	for n > 0 {
		f, h := v.receive()
		m := merged{frame: bytes.Clone(f), segments: 1}
		if h.gsoType != 0 {
			info := parsed(v.t, f)
			m.size = int(h.gsoSize)
			m.segments = (info.PayloadLen() + m.size - 1) / m.size
			want := gsoHdr(info, m.size)
			want.hdrLen = h.hdrLen // a hint, which Linux takes from elsewhere
			if h != want {
				v.t.Errorf("virtio_net_hdr %+v, want %+v", h, want)
			}
		}
		l4 := 14 + packet.IPv6Len
		if f[14]>>4 == 4 {
			l4 = 14 + packet.IPv4(f[14:]).HeaderLen()
		}
		i := packet.UDP(f[l4:]).SrcPort() - 1000
		all[i] = append(all[i], m)
		n -= m.segments
	}
	return all
}
