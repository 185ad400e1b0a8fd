package packet

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
)

// Key names one direction of a connection. All fields are in host byte order.
//
// The two ports are those of TCP, UDP and SCTP. For an ICMP echo both are the
// identifier, so that request and reply are each other's Reverse. For
// fragments but the first, and for every other protocol, both are 0.
type Key struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint8
	Family           uint8 // 4 or 6
	// Zone keeps apart connections that share addresses; Parse sets 0.
	Zone uint16
}

// Reverse is the key of the answers.
func (k *Key) Reverse() Key {
	return Key{Src: k.Dst, Dst: k.Src, SrcPort: k.DstPort, DstPort: k.SrcPort,
		Proto: k.Proto, Family: k.Family, Zone: k.Zone}
}

// secret makes hashes unpredictable from outside: a remote sender cannot choose
// keys that collide. It differs from process to process.
var secret = newSecret(rand.Uint64)

func newSecret(random func() uint64) (s [6]uint64) {
	for i := range s {
		s[i] = random() | 1 // a factor, never 0
	}
	return s
}

// Hash mixes all 40 bytes by folded 64×64 multiplications, as wyhash does. It
// is stable within the process only, and differs from Reverse's hash.
//
// The ports go into both factors of the last product: flows between two hosts
// differ in nothing else, and a product with one constant factor would be a
// mere arithmetic sequence.
func (k *Key) Hash() uint64 {
	tail := uint64(k.SrcPort) | uint64(k.DstPort)<<16 | uint64(k.Proto)<<32 | uint64(k.Family)<<40 | uint64(k.Zone)<<48
	h1, l1 := bits.Mul64(binary.LittleEndian.Uint64(k.Src[:8])^secret[0], binary.LittleEndian.Uint64(k.Src[8:])^secret[1])
	h2, l2 := bits.Mul64(binary.LittleEndian.Uint64(k.Dst[:8])^secret[2], binary.LittleEndian.Uint64(k.Dst[8:])^secret[3])
	h3, l3 := bits.Mul64(tail^secret[4], secret[5])
	h, l := bits.Mul64(h1^l1^h3^l3, h2^l2^tail)
	return h ^ l
}

// String is k for people: "tcp 10.1.0.2:4711 > 10.1.1.3:80".
func (k Key) String() string {
	name := ProtoName(k.Proto)
	switch {
	case k.Proto == ProtoICMP || k.Proto == ProtoICMPv6:
		return fmt.Sprintf("%s %s > %s id %d", name, k.Src, k.Dst, k.SrcPort)
	case k.SrcPort == 0 && k.DstPort == 0:
		return fmt.Sprintf("%s %s > %s", name, k.Src, k.Dst)
	}
	return fmt.Sprintf("%s %s > %s", name, netip.AddrPortFrom(k.Src.Netip(), k.SrcPort), netip.AddrPortFrom(k.Dst.Netip(), k.DstPort))
}

// ProtoName is the name of an IP protocol as conntrack prints it, or its number.
func ProtoName(proto uint8) string {
	switch proto {
	case ProtoICMP:
		return "icmp"
	case ProtoIPIP:
		return "ipip"
	case ProtoTCP:
		return "tcp"
	case ProtoUDP:
		return "udp"
	case ProtoICMPv6:
		return "icmpv6"
	case ProtoSCTP:
		return "sctp"
	}
	return fmt.Sprint(proto)
}
