package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"github.com/google/gopacket/layers"

	"culvert/internal/lab"
	kit "culvert/internal/pkttest"
)

// What a Culvert node takes from the wire, and what the pod gets of it, is what a
// kernel node takes and its pod gets, byte by byte, but for the cases that say why.
func TestPopIsAsTheKernels(t *testing.T) {
	for _, c := range []struct {
		as       lab.Kind
		underlay lab.Family
	}{{lab.Calico, lab.IPv4}, {lab.Calico, lab.IPv6}, {lab.Flannel, lab.IPv4}, {lab.Flannel, lab.IPv6}} {
		t.Run(fmt.Sprintf("%s over %s", c.as, c.underlay), func(t *testing.T) {
			ours, linux := newBed(t, lab.Culvert, c.as, c.underlay), newBed(t, c.as, c.as, c.underlay)
			for _, p := range popCases(t, c.underlay == lab.IPv6) {
				send := func(b *bed) [][]byte {
					var frames [][]byte
					for _, ip := range p.packets {
						frames = append(frames, b.tunnel(t, p.change, ip))
					}
					return b.fromWire(t, frames)
				}
				got, want := send(ours), send(linux)
				switch {
				case p.refused != "":
					if len(got) != 0 || len(want) == 0 {
						t.Errorf("%s: %d packets, of Linux %d, which %q does not explain", p.name, len(got), len(want), p.refused)
					}
				case p.taken != "":
					if len(got) == 0 || len(want) != 0 {
						t.Errorf("%s: %d packets, of Linux %d, which %q does not explain", p.name, len(got), len(want), p.taken)
					}
				case len(got) != len(want) || p.passes != (len(got) > 0):
					t.Errorf("%s: %d packets, of Linux %d", p.name, len(got), len(want))
				default:
					for i := range got {
						if !bytes.Equal(got[i], want[i]) {
							t.Errorf("%s: the packets differ:\nours\n%s\nLinux\n%s", p.name, kit.Dump(asFrame(got[i])), kit.Dump(asFrame(want[i])))
						}
					}
				}
			}
		})
	}
}

// outer is what a tunnel frame is made of.
type outer struct {
	v6           bool
	src, dst     string
	tos, ttl     uint8
	ip           func(*layers.IPv4) // what else is to be done to an IPv4 header
	sport, dport uint16
	vxlan        [8]byte
	// The inner frame's Ethernet addresses and what is between them and the packet.
	innerDst, innerSrc, innerType []byte
	// frame changes the finished frame; udp and inner are offsets.
	frame func(f []byte, udp, inner int) []byte
}

// tunnel puts a packet into a VXLAN frame from the peer to the node, changed.
func (b *bed) tunnel(t *testing.T, change func(*outer), ip []byte) []byte {
	t.Helper()
	node, peer := b.Nodes[0], b.Nodes[1]
	o := &outer{
		v6: node.Addr.Is6(), src: peer.Addr.String(), dst: node.Addr.String(), ttl: 64, sport: 40000, dport: b.Port,
		innerDst: vtepOf(t, node), innerSrc: vtepOf(t, peer), innerType: ethernet(nil, nil, ip)[:2],
	}
	binary.BigEndian.PutUint32(o.vxlan[:], 0x08000000)
	binary.BigEndian.PutUint32(o.vxlan[4:], b.VNI<<8)
	if change != nil {
		change(o)
	}
	body := kit.Bytes(kit.Join(o.vxlan[:], o.innerDst, o.innerSrc, o.innerType, ip)...)
	eth := kit.Eth(net.HardwareAddr(b.peerMAC).String(), net.HardwareAddr(b.nodeMAC).String())
	var f []byte
	udp := 14 + 40
	if o.v6 {
		f = kit.Frame(t, eth, kit.IP6(o.src, o.dst, kit.HopLimit(o.ttl), kit.TrafficClass(o.tos)), kit.UDP(o.sport, o.dport), body)
	} else {
		h := kit.IP4(o.src, o.dst, kit.TTL(o.ttl), kit.TOS(o.tos))
		if o.ip != nil {
			o.ip(h)
		}
		f = kit.Frame(t, eth, h, kit.UDP(o.sport, o.dport), body)
		udp = 14 + int(f[14]&15)*4
	}
	if o.frame != nil {
		f = o.frame(f, udp, udp+16)
	}
	return f
}

// probe is in the payload of what is to reach the pod.
const probe = "culvert probe"

// popCase is what comes from the wire.
type popCase struct {
	name    string
	change  func(*outer)
	packets [][]byte // inside
	passes  bool     // it reaches the pod
	refused string   // why Culvert refuses what Linux takes
	taken   string   // why Culvert takes what Linux refuses
}

// popCases are those for an underlay.
func popCases(t *testing.T, v6 bool) (all []popCase) {
	udp := func(opts ...func(*layers.IPv4)) []byte {
		return kit.IP(t, kit.IP4(podB4, podA4, opts...), kit.UDP(4711, 33000), kit.Bytes([]byte(probe)...))
	}
	udp6 := func(opts ...func(*layers.IPv6)) []byte {
		return kit.IP(t, kit.IP6(podB6, podA6, opts...), kit.UDP(4711, 33000), kit.Bytes([]byte(probe)...))
	}
	both := func() [][]byte { return [][]byte{udp(), udp6()} }
	add := func(passes bool, name string, change func(*outer), packets ...[]byte) {
		if packets == nil {
			packets = both()
		}
		all = append(all, popCase{name: name, passes: passes, change: change, packets: packets})
	}
	raw := func(passes bool, name string, change func(f []byte, udp, inner int) []byte) {
		add(passes, name, func(o *outer) { o.frame = change })
	}

	add(true, "plain", nil)
	for outerECN := range uint8(4) {
		for innerECN := range uint8(4) {
			name := fmt.Sprintf("outer ECN %d, inner ECN %d", outerECN, innerECN)
			passes := outerECN != 3 || innerECN != 0
			for _, dscp := range []uint8{0, 46} {
				add(passes, fmt.Sprint(name, ", DSCP ", dscp), func(o *outer) { o.tos = (46-dscp)<<2 | outerECN },
					udp(kit.TOS(dscp<<2|innerECN)), udp6(kit.TrafficClass(dscp<<2|innerECN)))
			}
		}
	}
	for bit := range 32 {
		add(false, fmt.Sprintf("VXLAN flags, bit %d is another", bit), func(o *outer) { o.vxlan[bit/8] ^= 0x80 >> (bit % 8) })
	}
	for bit := range 32 {
		add(false, fmt.Sprintf("VNI word, bit %d is another", bit), func(o *outer) { o.vxlan[4+bit/8] ^= 0x80 >> (bit % 8) })
	}
	add(false, "another port", func(o *outer) { o.dport++ })
	for _, port := range []uint16{1, 4789, 8472, 32767, 65535} {
		add(true, fmt.Sprint("source port ", port), func(o *outer) { o.sport = port })
	}
	for _, ttl := range []uint8{0, 1, 2, 255} {
		add(true, fmt.Sprint("outer TTL ", ttl), func(o *outer) { o.ttl = ttl })
		add(ttl > 1, fmt.Sprint("inner TTL ", ttl), nil, udp(kit.TTL(ttl)), udp6(kit.HopLimit(ttl)))
	}

	add(false, "inner destination MAC of another", func(o *outer) { o.innerDst = []byte{0x66, 1, 2, 3, 4, 5} })
	add(false, "inner destination MAC broadcast", func(o *outer) { o.innerDst = bytes.Repeat([]byte{0xff}, 6) })
	add(false, "inner destination MAC multicast", func(o *outer) { o.innerDst = []byte{1, 0, 0x5e, 1, 2, 3} })
	add(false, "inner source MAC is the node's own", func(o *outer) { o.innerSrc = o.innerDst })
	add(true, "inner source MAC of another", func(o *outer) { o.innerSrc = []byte{0x66, 1, 2, 3, 4, 5} })
	add(false, "inner VLAN", func(o *outer) { o.innerType = kit.Join([]byte{0x81, 0, 0, 7}, o.innerType) })
	add(false, "inner EtherType of another protocol", func(o *outer) { o.innerType = []byte{0x88, 0xcc} })
	add(false, "inner EtherType and version disagree", func(o *outer) { o.innerType = []byte{o.innerType[0] ^ 0x8e, o.innerType[1] ^ 0xdd} })

	raw(true, "Ethernet padding", func(f []byte, _, _ int) []byte { return kit.Pad(f, 22) })
	raw(false, "cut off", func(f []byte, _, _ int) []byte { return f[:len(f)-3] })
	raw(false, "an outer UDP length beyond the packet", func(f []byte, udp, _ int) []byte { return kit.Corrupt(f, udp+4, 0x10) })
	raw(false, "an outer UDP length below its header", func(f []byte, udp, _ int) []byte { return kit.Corrupt(f, udp+4, 0, 7) })
	raw(false, "an inner length beyond the frame", func(f []byte, udp, inner int) []byte {
		if f[inner+12] == 0x08 {
			f = kit.Corrupt(f, inner+14+2, 0, 200)
		} else {
			f = kit.Corrupt(f, inner+14+4, 0, 200)
		}
		return resum(f, udp)
	})
	raw(false, "the header alone", func(f []byte, udp, inner int) []byte { return shorten(f, udp, inner) })
	raw(false, "half an inner Ethernet header", func(f []byte, udp, inner int) []byte { return shorten(f, udp, inner+7) })
	raw(false, "an inner Ethernet header alone", func(f []byte, udp, inner int) []byte { return shorten(f, udp, inner+14) })

	// Checksums.
	noSum := func(f []byte, udp, _ int) []byte { return kit.Corrupt(f, udp+6, 0, 0) }
	wrongSum := func(f []byte, udp, _ int) []byte { return kit.Corrupt(f, udp+6, f[udp+6]^0x10) }
	raw(!v6, "no outer UDP checksum", noSum)
	if v6 {
		raw(false, "a wrong outer UDP checksum", wrongSum)
	} else {
		all = append(all, popCase{name: "a wrong outer UDP checksum", packets: both(), change: func(o *outer) { o.frame = wrongSum },
			taken: "kernels send wrong ones behind NAT (flannel-io/flannel 1279, 2152); the inner packet has its own, which the pod verifies"})
	}
	raw(true, "a wrong inner checksum", func(f []byte, udp, inner int) []byte {
		l4 := inner + 14 + 20
		if f[inner+12] == 0x86 {
			l4 += 20
		}
		return resum(kit.Corrupt(f, l4+6, 0x12, 0x34), udp)
	})

	add(true, "fragments inside", nil,
		kit.IP(t, kit.IP4(podB4, podA4, kit.ID(7), kit.Proto(17), kit.Fragment(0, true)), kit.Bytes(fragment(0, 104)...)),
		kit.IP(t, kit.IP4(podB4, podA4, kit.ID(7), kit.Proto(17), kit.Fragment(104, false)), kit.Bytes(fragment(104, 50)...)))
	add(true, "options inside", nil, udp(kit.Option(0x9e, 1, 2)))
	add(true, "largest", nil, kit.IP(t, kit.IP4(podB4, podA4), kit.ICMP4(8, 0, 1, 1), kit.Bytes(kit.Join([]byte(probe), make([]byte, 1370))...)))
	add(true, "TCP inside", nil, kit.IP(t, kit.IP4(podB4, podA4), kit.TCP(1, 33009, kit.Flags("S")), kit.Bytes([]byte(probe)...)))
	add(false, "a wrong inner header checksum", nil, kit.Corrupt(udp(), 10, 1, 2))
	add(false, "from loopback inside", nil, kit.IP(t, kit.IP4("127.0.0.1", podA4), kit.UDP(1, 2), kit.Bytes([]byte(probe)...)))
	add(false, "link-local inside", nil, kit.IP(t, kit.IP6("fe80::1", podA6), kit.UDP(1, 2), kit.Bytes([]byte(probe)...)))

	// What no kernel overlay checks, and Culvert does.
	refuse := func(why, name string, change func(*outer), packets ...[]byte) {
		all = append(all, popCase{name: name, refused: why, change: change, packets: packets})
	}
	stranger := func(o *outer) { o.src = map[bool]string{false: "192.168.50.77", true: "fd50::77"}[v6] }
	refuse("only known nodes may send: drop reason tunnel_unknown_peer", "an unknown node", stranger, both()...)
	refuse("a node may send from its own pods' addresses: drop reason tunnel_source_mismatch", "another node's pod", nil,
		kit.IP(t, kit.IP4("10.244.9.2", podA4), kit.UDP(1, 2), kit.Bytes([]byte(probe)...)),
		kit.IP(t, kit.IP6("fd44:0:0:9::2", podA6), kit.UDP(1, 2), kit.Bytes([]byte(probe)...)))
	if !v6 {
		raw(false, "a wrong outer header checksum", func(f []byte, _, _ int) []byte { return kit.Corrupt(f, 24, 1, 2) })
		add(true, "outer DF", func(o *outer) { o.ip = kit.DF() })
		add(true, "outer identification 0", func(o *outer) { o.ip = kit.ID(0) })
		add(true, "outer options", func(o *outer) { o.ip = kit.Option(0x9e, 1, 2) })
	}
	return all
}

// fragment is a part of a UDP datagram from port 1 to 33007.
func fragment(from, n int) []byte {
	b := kit.Join([]byte{0, 1, 0x80, 0xef, 0, 154, 0, 0}, bytes.Repeat([]byte(probe), 20))
	return b[from : from+n]
}

// resum makes the outer UDP checksum right.
func resum(f []byte, udp int) []byte {
	f = kit.ZeroL4Checksum(f)
	n := uint32(len(f) - udp)
	var pseudo []byte
	if f[14]>>4 == 4 {
		pseudo = f[26:34]
	} else {
		pseudo = f[22:54]
	}
	sum := ^kit.Sum16(f[udp:], uint32(kit.Sum16(pseudo, 17+n)))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(f[udp+6:], sum)
	return f
}

// shorten cuts a frame off and makes its lengths and checksums right.
func shorten(f []byte, udp, n int) []byte {
	f = f[:n]
	binary.BigEndian.PutUint16(f[udp+4:], uint16(n-udp))
	if f[14]>>4 == 4 {
		binary.BigEndian.PutUint16(f[16:], uint16(n-14))
		f = kit.FixIP4(f)
	} else {
		binary.BigEndian.PutUint16(f[18:], uint16(n-54))
	}
	return resum(f, udp)
}
