package packet_test

import (
	"bytes"
	"fmt"
	"testing"

	"culvert/internal/packet"
	"culvert/internal/pkttest"

	"github.com/google/gopacket/layers"
)

// allFlags are the letters of the TCP flags, from bit 0 on (pkttest.Flags).
const allFlags = "FSRPAUEC"

// flagLetters names the flags of a byte.
func flagLetters(flags int) (s string) {
	for i := range allFlags {
		if flags>>i&1 != 0 {
			s += allFlags[i : i+1]
		}
	}
	return s
}

// option is a TCP option of n bytes; 0 makes none.
func option(n int) func(*layers.TCP) {
	switch n {
	case 0:
		return func(*layers.TCP) {}
	case 1:
		return nop()
	}
	return pkttest.TCPOption(254, pkttest.Pattern(n-2)...)
}

// ip4Option is an IPv4 option of n bytes, a multiple of 4; 0 makes none.
func ip4Option(n int) func(*ip4) {
	if n == 0 {
		return func(*ip4) {}
	}
	return pkttest.Option(0x9e, pkttest.Pattern(n-2)...)
}

// gsoCase is one big frame to cut. Its headers are in layers.
type gsoCase struct {
	name   string
	layers []pkttest.Layer
	size   int // of the payload
	mss    int
}

// headers are an IP and a transport header of each kind.
func headers() map[string]func() []pkttest.Layer {
	const src, dst, src6, dst6 = "10.1.0.2", "10.1.1.3", "fd00::2", "fd00::3"
	seq := pkttest.Seq(0xffff_ff00)
	return map[string]func() []pkttest.Layer{
		"tcp4": func() []pkttest.Layer {
			return []pkttest.Layer{pkttest.IP4(src, dst, pkttest.ID(0xfffe)), pkttest.TCP(1000, 80, seq)}
		},
		"tcp4 DF": func() []pkttest.Layer {
			return []pkttest.Layer{pkttest.IP4(src, dst, pkttest.ID(0), pkttest.DF(), pkttest.TOS(0x2b)), pkttest.TCP(1000, 80, seq)}
		},
		"tcp6": func() []pkttest.Layer {
			return []pkttest.Layer{pkttest.IP6(src6, dst6, pkttest.TrafficClass(0x2b)), pkttest.TCP(1000, 80, seq)}
		},
		"tcp6 options": func() []pkttest.Layer {
			return []pkttest.Layer{pkttest.IP6(src6, dst6), pkttest.Ext(60, 0, 0, 1, 4, 0, 0, 0, 0), pkttest.TCP(1000, 80, seq)}
		},
		"udp4": func() []pkttest.Layer {
			return []pkttest.Layer{pkttest.IP4(src, dst, pkttest.ID(0xfffe)), pkttest.UDP(1000, 80)}
		},
		"udp4 DF": func() []pkttest.Layer {
			return []pkttest.Layer{pkttest.IP4(src, dst, pkttest.ID(0), pkttest.DF(), pkttest.TOS(0x2b)), pkttest.UDP(1000, 80)}
		},
		"udp4 options": func() []pkttest.Layer {
			return []pkttest.Layer{pkttest.IP4(src, dst, ip4Option(40)), pkttest.UDP(1000, 80)}
		},
		"udp6": func() []pkttest.Layer {
			return []pkttest.Layer{pkttest.IP6(src6, dst6, pkttest.TrafficClass(0x2b)), pkttest.UDP(1000, 80)}
		},
		"udp6 options": func() []pkttest.Layer {
			return []pkttest.Layer{pkttest.IP6(src6, dst6), pkttest.Ext(60, 0, 0, 1, 4, 0, 0, 0, 0), pkttest.UDP(1000, 80)}
		},
	}
}

// gsoCases are sizes around multiples of many MSSs for all kinds of header, all
// TCP flags, and TCP and IPv4 options of all lengths.
func gsoCases() []gsoCase {
	var all []gsoCase
	for name, hdr := range headers() {
		for _, mss := range []int{1, 7, 48, 536, 1400, 1448, 8948, 32000} {
			for _, n := range []int{1, 2, 3, 5, 44} {
				for _, d := range []int{-1, 0, 1} {
					size := n*mss + d
					if size > 0 && size <= 65000 {
						all = append(all, gsoCase{fmt.Sprintf("%s/%d of %d", name, size, mss), hdr(), size, mss})
					}
				}
			}
		}
		all = append(all, gsoCase{name + "/64000", hdr(), 64000, 1400})
	}
	for flags := range 256 {
		tcp := func() pkttest.Layer { return pkttest.TCP(1000, 80, pkttest.Flags(flagLetters(flags))) }
		name := "flags " + flagLetters(flags)
		all = append(all,
			gsoCase{name + "/v4", []pkttest.Layer{pkttest.IP4("10.1.0.2", "10.1.1.3"), tcp()}, 300, 100},
			gsoCase{name + "/v6", []pkttest.Layer{pkttest.IP6("fd00::2", "fd00::3"), tcp()}, 201, 100})
	}
	for ip := 0; ip <= 40; ip += 4 {
		for tcp := 0; tcp <= 40; tcp++ {
			l := []pkttest.Layer{pkttest.IP4("10.1.0.2", "10.1.1.3", ip4Option(ip)), pkttest.TCP(1000, 80, option(tcp))}
			all = append(all, gsoCase{fmt.Sprintf("options/%d %d", ip, tcp), l, 2801, 1400})
		}
	}
	return all
}

// The segmenter against Linux itself: one GSO frame through a veth without
// segmentation offload, and every segment byte for byte. Behind a veth with
// checksum offload Linux leaves its segments' checksums partial, as Next does;
// without it validate_xmit_skb (net/core/dev.c) has them computed, as Complete does.
func TestSegmenterAgainstLinux(t *testing.T) {
	tests := map[string]string{
		"partial":  "ethtool -K v0 tso off tx-udp-segmentation off",
		"complete": "ethtool -K v0 tso off tx-udp-segmentation off tx off",
	}
	for name, off := range tests {
		t.Run(name, func(t *testing.T) {
			v := newVeth(t, off)
			cases := gsoCases()
			for _, c := range cases {
				v.compareSegments(c, name == "complete")
			}
			t.Logf("%d frames", len(cases))
		})
	}
}

func (v *veth) compareSegments(c gsoCase, complete bool) {
	v.t.Helper()
	ls := append([]pkttest.Layer{pkttest.Eth(podMAC, gwMAC)}, c.layers...)
	f := pkttest.Frame(v.t, append(ls, pkttest.Payload(c.size))...)
	setPartial(f, parsed(v.t, f))
	info := parsed(v.t, f)
	v.send(f, gsoHdr(info, c.mss))
	for i, want := range segments(v.t, f, c.mss, complete) {
		got, h := v.receive()
		if !bytes.Equal(got[info.L3:], want) {
			v.t.Fatalf("%s: segment %d from Linux is\n%sours is\n%s", c.name, i, pkttest.Dump(got), pkttest.Dump(etherFrame(want)))
		}
		if partial := h.flags&vnetNeedsCsum != 0; h.gsoType != 0 || partial == complete {
			v.t.Fatalf("%s: segment %d from Linux: %+v", c.name, i, h)
		}
	}
}

// setPartial leaves a frame's TCP or UDP checksum as Linux leaves it to a device.
// It knows extension headers, which pkttest.SetPartial does not.
func setPartial(f []byte, info *packet.Info) {
	offset, _ := packet.ChecksumOffset(info.Proto)
	h := f[info.L3:]
	addrs := h[12:20]
	if info.Has(packet.V6) {
		addrs = h[8:40]
	}
	l4len := uint32(info.L3) + info.L3Len - uint32(info.L4)
	sum := pkttest.Sum16(addrs, uint32(info.Proto)+l4len)
	pkttest.Corrupt(f, int(info.L4)+offset, byte(sum>>8), byte(sum))
}
