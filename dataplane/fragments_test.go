package dataplane

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"culvert/dataplane/frag"
	"culvert/dataplane/frame"
	"culvert/internal/drop"
	"culvert/internal/memport"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

const (
	ip6A = "fd00:1::2"
	ip6B = "fd00:2::2"
	ip6C = "fd00:1::3"
)

// pair6 is pair with IPv6 pods besides: d and f at node 1, e at node 2.
func pair6(t *testing.T) (n1, n2 *testNode) {
	n1, n2 = pair(t)
	n1.addPod("d", ip6A)
	n1.addPod("f", ip6C)
	n2.addPod("e", ip6B)
	n1.addPeer("fd00:2::/64", n2)
	n2.addPeer("fd00:1::/64", n1)
	return n1, n2
}

// way is one that datagrams take through node 1.
type way struct {
	in, out  string // pods, or "" for the wire
	src, dst string
	v6       bool
}

var ways = map[string]way{
	"pod to wire":       {"a", "", ipA, ipB, false},
	"wire to pod":       {"", "a", ipB, ipA, false},
	"pod to pod":        {"a", "c", ipA, ipC, false},
	"pod to wire, IPv6": {"d", "", ip6A, ip6B, true},
	"wire to pod, IPv6": {"", "d", ip6B, ip6A, true},
	"pod to pod, IPv6":  {"d", "f", ip6A, ip6C, true},
}

// dev is the device of a pod of n, or its uplink.
func (n *testNode) dev(pod string) *memport.Device {
	if pod == "" {
		return n.uplink
	}
	return n.pods[pod].dev
}

// fragment is a fragment as it arrives on w, or all of a datagram.
func (w way) fragment(t testing.TB, n *testNode, id uint32, proto uint8, offset int, more bool, payload []byte) []byte {
	src, dst := vtep2, vtep1
	if w.in != "" {
		src, dst = n.pods[w.in].mac.String(), gwMAC
	}
	ls := []kit.Layer{kit.Eth(src, dst)}
	switch {
	case w.v6:
		word := uint16(offset)
		if more {
			word |= 1
		}
		ls = append(ls, kit.IP6(w.src, w.dst), kit.Ext(packet.ProtoFragment, proto, 0, byte(word>>8), byte(word), byte(id>>24), byte(id>>16), byte(id>>8), byte(id)))
	default:
		ls = append(ls, kit.IP4(w.src, w.dst, kit.ID(uint16(id)), kit.Fragment(offset, more), kit.Proto(proto)))
	}
	f := kit.Frame(t, append(ls, kit.Bytes(payload...))...)
	if w.in == "" {
		f = kit.Frame(t, kit.Eth(nic2, nic1), kit.IP4(node2, node1), kit.UDP(40000, testPort), kit.VXLANHeader(testVNI), kit.Bytes(f...))
	}
	return f
}

// datagram is a UDP datagram in n fragments of 40 bytes, the last of 37.
func (w way) datagram(t testing.TB, node *testNode, id uint32, n int) [][]byte {
	udp := kit.Pattern(40*n - 3)
	copy(udp, []byte{0x12, 0x34, 0, 53, byte(len(udp) >> 8), byte(len(udp)), 0, 0})
	var frames [][]byte
	for i := range n {
		frames = append(frames, w.fragment(t, node, id, packet.ProtoUDP, 40*i, i < n-1, udp[40*i:min(40*i+40, len(udp))]))
	}
	return frames
}

// sent is what left on w, from the inner Ethernet header on, and the source ports
// of the tunnel.
func (w way) sent(t *testing.T, n *testNode) (inner [][]byte, ports []uint16) {
	t.Helper()
	for _, s := range n.dev(w.out).TakeSent() {
		if w.out != "" {
			inner = append(inner, s.Data)
			continue
		}
		inner = append(inner, kit.CheckVXLAN(t, s.Data))
		ports = append(ports, binary.BigEndian.Uint16(s.Data[34:]))
	}
	return inner, ports
}

// offsetOf is a fragment's offset in its datagram.
func offsetOf(t *testing.T, f []byte) int {
	t.Helper()
	var info packet.Info
	if r := packet.Parse(f, len(f), &info); r != drop.None {
		t.Fatal(r)
	}
	return int(packet.PieceOf(f, &info).Offset)
}

// permutations of 0 to n-1.
func permutations(n int) (all [][]int) {
	if n == 0 {
		return [][]int{nil}
	}
	for _, p := range permutations(n - 1) {
		for i := range n {
			all = append(all, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return all
}

// In whatever order the fragments of a datagram arrive, in one burst or in many,
// the first one leaves first, then those that waited in the order of their
// arrival, all in the flow that the whole datagram would be in.
func TestFragmentsFollowTheirFlow(t *testing.T) {
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			n1, _ := pair6(t)
			id, count := uint32(0), uint64(0)
			for n := 3; n <= 6; n++ {
				for _, order := range permutations(n) {
					for _, burst := range []bool{true, false} {
						id++
						frames := w.datagram(t, n1, id, n)
						for _, i := range order {
							n1.dev(w.in).Inject(frames[i])
							if !burst {
								n1.step()
							}
						}
						n1.step()
						w.checkOrder(t, n1, order)
						count += uint64(n)
					}
				}
			}
			n1.wantDrops(drop.None, 0)
			if s := n1.w.frags.tracker.Stats(); s != (frag.Stats{}) {
				t.Errorf("the tracker is left with %+v", s)
			}
			if got := n1.e.FlowTable().Len(); got != 1 {
				t.Errorf("%d flows, want 1", got)
			}
			for v := range n1.e.FlowTable().Range {
				if v.Orig.SrcPort != 0x1234 || v.Orig.DstPort != 53 || v.Packets[0] != count {
					t.Errorf("flow %s of %d packets, want %d", v.Orig, v.Packets[0], count)
				}
			}
			for _, p := range n1.e.Ports() {
				if p.Spec.Name == map[bool]string{true: "u0", false: "cv" + w.in}[w.in == ""] && p.RxPackets != count {
					t.Errorf("%s received %d frames, want %d", p.Spec.Name, p.RxPackets, count)
				}
			}
		})
	}
}

// checkOrder checks what left of a datagram whose fragments came in that order.
func (w way) checkOrder(t *testing.T, n1 *testNode, order []int) {
	t.Helper()
	want := []int{0}
	for _, i := range order {
		if i != 0 {
			want = append(want, i)
		}
	}
	inner, ports := w.sent(t, n1)
	var got []int
	var whole [240]byte
	for _, f := range inner {
		offset := offsetOf(t, f)
		got = append(got, offset/40)
		header := 34
		if w.v6 {
			header = 14 + 40 + 8
		}
		copy(whole[offset:], f[header:])
	}
	n := 40*len(order) - 3
	if !slices.Equal(got, want) || !bytes.Equal(whole[8:n], kit.Pattern(n)[8:]) {
		t.Fatalf("arrived %v, left %v, want %v; changed: %v", order, got, want, !bytes.Equal(whole[8:n], kit.Pattern(n)[8:]))
	}
	slices.Sort(ports)
	if len(slices.Compact(ports)) > 1 {
		t.Fatalf("the fragments of one datagram left with the tunnel source ports %v", ports)
	}
}

// Fragments are packets of the flow that is there, as their tunnel's source port
// shows, and atomic ones need no tracker.
func TestFragmentsOfAnEstablishedFlow(t *testing.T) {
	n1, _ := pair6(t)
	for _, v6 := range []bool{false, true} {
		w, ip := ways["pod to wire"], kit.Layer(kit.IP4(ipA, ipB))
		if v6 {
			w, ip = ways["pod to wire, IPv6"], kit.IP6(ip6A, ip6B)
		}
		n1.dev(w.in).Inject(kit.Frame(t, kit.Eth(n1.pods[w.in].mac.String(), gwMAC), ip, kit.UDP(0x1234, 53), kit.Payload(50)))
		n1.dev(w.in).Inject(w.datagram(t, n1, 5, 3)...)
		if v6 {
			n1.dev(w.in).Inject(w.datagram(t, n1, 6, 1)...)
		}
		n1.step()
		_, ports := w.sent(t, n1)
		if want := 4 + map[bool]int{true: 1}[v6]; len(ports) != want {
			t.Errorf("IPv6 %v: %d frames left, want %d", v6, len(ports), want)
		}
		slices.Sort(ports)
		if len(slices.Compact(ports)) != 1 {
			t.Errorf("IPv6 %v: tunnel source ports %v", v6, ports)
		}
	}
	if got := n1.e.FlowTable().Len(); got != 2 {
		t.Errorf("%d flows, want one of each family", got)
	}
	n1.wantDrops(drop.None, 0)
}

// A datagram that is refused is refused in every fragment, and the sender is told
// once.
func TestFragmentsAreRefusedAsOne(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}} {
		n1, _ := pair(t)
		frames := way{"a", "", ipA, "203.0.113.1", false}.datagram(t, n1, 1, 3)
		for _, i := range order {
			n1.dev("a").Inject(frames[i])
		}
		n1.step()
		n1.wantDrops(drop.NoRoute, 3)
		kit.CheckPacket(t, one(t, n1.dev("a").TakeSent()).Data, kit.WithICMP(3, 0))
		if got := n1.e.FlowTable().Len(); got != 0 {
			t.Errorf("%d flows", got)
		}
	}
}

// Fragments of an ICMP error go the way of the flow that it quotes, and make none.
func TestFragmentsOfAnICMPError(t *testing.T) {
	n1, _ := pair(t)
	w := ways["pod to wire"]
	n1.fromPod("a", kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.UDP(5, 6), kit.Payload(36)))
	quoted := kit.Frame(t, kit.Eth(gwMAC, macA), kit.IP4(ipB, ipA), kit.UDP(6, 5), kit.Payload(36))[packet.EthernetLen:]
	first := append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, quoted...)
	last := w.fragment(t, n1, 1, packet.ProtoICMP, 72, false, kit.Pattern(9))
	n1.dev("a").Inject(last, w.fragment(t, n1, 1, packet.ProtoICMP, 0, true, first))
	n1.step()
	n1.dev("a").Inject(w.fragment(t, n1, 2, packet.ProtoICMP, 0, true, first), w.fragment(t, n1, 2, packet.ProtoICMP, 72, false, kit.Pattern(9)))
	n1.step()
	if inner, _ := w.sent(t, n1); len(inner) != 4 {
		t.Errorf("%d fragments left, want 4", len(inner))
	}
	if got := n1.e.FlowTable().Len(); got != 1 {
		t.Errorf("%d flows", got)
	}
	n1.wantDrops(drop.None, 0)
}

// A frame that waits keeps what its tunnel header said, and all its chunks. One
// that is larger than its way is cut again.
func TestHeldFramesKeepWhatTheyAre(t *testing.T) {
	n1, _ := pair(t)
	w := ways["wire to pod"]
	frames := w.datagram(t, n1, 1, 2)
	for i, f := range frames { // ECT(0) inside, congestion on the way of the second
		f = kit.FixIP4(kit.Corrupt(bytes.Clone(f), 14+1, byte(2+i)))
		inner := kit.FixIP4(kit.Corrupt(bytes.Clone(f[50:]), 14+1, 2))
		frames[i] = kit.Join(f[:50], inner)
	}
	n1.uplink.Inject(frames[1], frames[0])
	n1.step()
	inner, _ := w.sent(t, n1)
	for i, f := range inner {
		kit.CheckPacket(t, f, kit.WithTOS(byte(2+i)), kit.WithTTL(63))
	}
	if len(inner) != 2 {
		t.Fatalf("%d fragments", len(inner))
	}

	w = ways["pod to pod"]
	payload := kit.Pattern(16000 + 6001)
	parts := [][]byte{w.fragment(t, n1, 2, packet.ProtoUDP, 0, true, payload[:8000]),
		w.fragment(t, n1, 2, packet.ProtoUDP, 8000, true, payload[8000:16000]), w.fragment(t, n1, 2, packet.ProtoUDP, 16000, false, payload[16000:])}
	n1.dev("a").Inject(parts[2])
	n1.dev("a").Inject(parts[1])
	n1.step()
	if got := n1.w.frags.chunks(); got != 5 {
		t.Errorf("%d chunks are held, want 5", got)
	}
	n1.dev("c").Inject(kit.Frame(t, kit.Eth(n1.pods["c"].mac.String(), gwMAC), kit.IP4(ipC, ipA), kit.UDP(1, 2), kit.Payload(3000))) // the burst's memory is used again
	n1.dev("a").Inject(parts[0])
	n1.step()
	got := make([]byte, len(payload))
	inner, _ = w.sent(t, n1)
	for _, f := range inner {
		if len(f) > 14+podMTU {
			t.Errorf("a frame of %d bytes", len(f))
		}
		copy(got[offsetOf(t, f):], f[34:])
	}
	if !bytes.Equal(got, payload) {
		t.Error("what arrived is not what was sent")
	}
	n1.wantDrops(drop.None, 0)
}

// Frames that wait are counted at the port that they came by, also where many
// ports share a device.
func TestFragmentsFromAnIntake(t *testing.T) {
	n1, _ := pair(t)
	in := memport.New(n1.e.Pool(0))
	n1.addPort(PortSpec{Name: "intake", Kind: PortIntake}, in)
	tagged := func(pod string, f []byte) []byte {
		f = bytes.Clone(f)
		frame.WriteTag(f, frame.Tag{Port: n1.pods[pod].port, Genuine: true})
		return f
	}
	a, c := ways["pod to wire"].datagram(t, n1, 1, 3), way{"c", "", ipC, ipB, false}.datagram(t, n1, 1, 3)
	in.Inject(tagged("a", a[2]), tagged("c", c[2]), tagged("a", a[1]), tagged("c", c[1]), tagged("a", a[0]), tagged("c", c[0]))
	in.Inject(tagged("a", ways["pod to wire"].datagram(t, n1, 2, 2)[1]), tagged("c", way{"c", "", ipC, ipB, false}.datagram(t, n1, 2, 3)[1]),
		tagged("c", way{"c", "", ipC, ipB, false}.datagram(t, n1, 2, 3)[2]))
	n1.step()
	if inner, _ := ways["pod to wire"].sent(t, n1); len(inner) != 6 {
		t.Errorf("%d fragments left, want 6", len(inner))
	}
	n1.clock = time.Minute
	n1.step()
	n1.w.expireFragments()
	got := map[string]uint64{}
	for _, d := range n1.e.Drops() {
		got[d.Port] = d.Packets
	}
	if got["cva"] != 1 || got["cvc"] != 2 || len(got) != 2 {
		t.Errorf("orphans by port: %v", got)
	}
}

// Neither fragments in order, nor in another one, nor a flood of them allocate.
func TestFragmentsDoNotAllocate(t *testing.T) {
	for name, order := range map[string][]int{"in order": {0, 1, 2, 3}, "reverse": {3, 2, 1, 0}, "orphans": {1, 2, 3}} {
		n1, _ := pair(t)
		dev := &loop{pool: n1.w.pool}
		q := n1.w.ports[n1.pods["a"].port]
		q.dev = dev
		for id := range uint32(2000) {
			frames := ways["pod to wire"].datagram(t, n1, id, 4)
			for _, i := range order {
				dev.frames = append(dev.frames, frames[i])
			}
		}
		up := n1.w.ports[n1.upPort]
		up.dev = &loop{pool: n1.w.pool}
		if got := testing.AllocsPerRun(200, func() {
			n1.w.handle(q)
			n1.w.expireFragments()
			n1.w.flows.Quiesce(0)
		}); got != 0 {
			t.Errorf("%s: %v allocations a burst", name, got)
		}
	}
}
