package packet_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"culvert/internal/packet"
)

func netipOf(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestAddr(t *testing.T) {
	tests := []struct {
		text string
		is4  bool
		fold uint32
	}{
		{"10.1.2.3", true, 0x0a010203},
		{"0.0.0.0", true, 0},
		{"::", false, 0},
		{"2001:db8::1", false, 0x20010db8 ^ 1},
		{"1:2:3:4:5:6:7:8", false, 0x00010002 ^ 0x00030004 ^ 0x00050006 ^ 0x00070008},
	}
	for _, tt := range tests {
		a := addr(tt.text)
		if a.Is4() != tt.is4 || a.Fold() != tt.fold || a.String() != tt.text || a.Netip() != netipOf(tt.text) {
			t.Errorf("%s: Is4 %v, Fold %#x, String %s", tt.text, a.Is4(), a.Fold(), a)
		}
		if tt.is4 && (packet.AddrFrom4(tt.fold) != a || a.V4() != tt.fold) {
			t.Errorf("%s: AddrFrom4 and V4 disagree", tt.text)
		}
		if a.IsZero() != (tt.text == "::") {
			t.Errorf("%s: IsZero %v", tt.text, a.IsZero())
		}
	}
	if a := packet.AddrFrom(netip.Addr{}); !a.IsZero() {
		t.Errorf("the invalid address became %s", a)
	}
}

func TestParseMAC(t *testing.T) {
	for s, want := range map[string]bool{
		"0a:58:0a:01:00:02": true, "0A-58-0A-01-00-02": true,
		"": false, "0a:58:0a:01:00": false, "0a:58:0a:01:00:02:03:04": false, "gg:58:0a:01:00:02": false,
	} {
		m, err := packet.ParseMAC(s)
		if (err == nil) != want {
			t.Errorf("%q: %v", s, err)
		}
		if want && m.String() != podMAC {
			t.Errorf("%q became %s", s, m)
		}
	}
	var m packet.MAC
	if err := m.UnmarshalText([]byte(podMAC)); err != nil || m.String() != podMAC {
		t.Errorf("%s, %v", m, err)
	}
	if b, _ := m.MarshalText(); string(b) != podMAC {
		t.Errorf("%s", b)
	}
}

func TestSizes(t *testing.T) {
	if n := reflect.TypeFor[packet.Key]().Size(); n != 40 {
		t.Errorf("Key has %d bytes, want 40", n)
	}
	if n := reflect.TypeFor[packet.Info]().Size(); n != 64 {
		t.Errorf("Info has %d bytes, want a cache line", n)
	}
}

func TestKey(t *testing.T) {
	k := packet.Key{Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), SrcPort: 1, DstPort: 2, Proto: 6, Family: 4, Zone: 3}
	r := k.Reverse()
	if r.Src != k.Dst || r.DstPort != 1 || r.Zone != 3 || r.Reverse() != k {
		t.Errorf("Reverse: %+v", r)
	}
	if k.Hash() == r.Hash() {
		t.Error("the hash is symmetric")
	}
	for k, want := range map[packet.Key]string{
		k: "tcp 10.0.0.1:1 > 10.0.0.2:2",
		{Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Proto: 47, Family: 4}:                                    "47 10.0.0.1 > 10.0.0.2",
		{Src: addr("fd00::1"), Dst: addr("fd00::2"), SrcPort: 5, DstPort: 5, Proto: 58, Family: 6}:              "icmpv6 fd00::1 > fd00::2 id 5",
		{Src: addr("fd00::1"), Dst: addr("fd00::2"), SrcPort: 5, DstPort: 6, Proto: packet.ProtoUDP, Family: 6}: "udp [fd00::1]:5 > [fd00::2]:6",
	} {
		if k.String() != want {
			t.Errorf("%q, want %q", k.String(), want)
		}
	}
}

// Every field counts, and keys that differ little spread evenly.
func TestKeyHashSpreads(t *testing.T) {
	var raw [40]byte
	k := keyOf(&raw)
	seen := map[uint64]bool{k.Hash(): true}
	for i := range raw {
		for bit := range 8 {
			raw[i] = 1 << bit
			k := keyOf(&raw)
			if h := k.Hash(); seen[h] {
				t.Errorf("byte %d, bit %d changes nothing", i, bit)
			} else {
				seen[h] = true
			}
		}
		raw[i] = 0
	}
}

// Keys as they come in clusters spread like random ones, whatever the secret.
func TestKeyHashSpreadsClusters(t *testing.T) {
	base := packet.Key{Src: addr("10.1.0.2"), Dst: addr("10.2.0.1"), SrcPort: 40000, DstPort: 80, Proto: 6, Family: 4}
	base6 := packet.Key{Src: addr("fd00::2"), Dst: addr("fd00:0:1::3"), SrcPort: 40000, DstPort: 80, Proto: 6, Family: 6}
	clusters := map[string]func(i int) packet.Key{
		"source ports":      func(i int) packet.Key { k := base; k.SrcPort = uint16(i); return k },
		"destination ports": func(i int) packet.Key { k := base; k.DstPort = uint16(i); return k },
		"sources":           func(i int) packet.Key { k := base; k.Src = packet.AddrFrom4(0x0a010000 + uint32(i)); return k },
		"destinations":      func(i int) packet.Key { k := base; k.Dst = packet.AddrFrom4(0x0a020000 + uint32(i)); return k },
		"both ends": func(i int) packet.Key {
			k := base
			k.Src, k.Dst = packet.AddrFrom4(0x0a010000+uint32(i&0xff)), packet.AddrFrom4(0x0a020000+uint32(i>>8))
			return k
		},
		"source ports 6": func(i int) packet.Key { k := base6; k.SrcPort = uint16(i); return k },
		"sources 6":      func(i int) packet.Key { k := base6; k.Src[15], k.Src[14] = byte(i), byte(i>>8); return k },
	}
	const buckets, keys, seeds = 256, 1 << 14, 40
	r := rand.New(rand.NewPCG(1, 2))
	defer packet.Reseed(r.Uint64)
	for name, key := range clusters {
		for seed := range seeds {
			packet.Reseed(r.Uint64)
			var low, mid, high [buckets]int
			for i := range keys {
				k := key(i)
				h := k.Hash()
				low[h%buckets]++
				mid[h>>28%buckets]++
				high[h>>56]++
			}
			for part, counts := range map[string]*[buckets]int{"low": &low, "middle": &mid, "high": &high} {
				chi := 0.0
				for _, n := range counts {
					d := float64(n) - keys/buckets
					chi += d * d / (keys / buckets)
				}
				// 255 degrees of freedom: mean 255, deviation 23.
				if chi > 255+8*23 {
					t.Errorf("%s, seed %d, %s bits: chi square %.0f, want about 255", name, seed, part, chi)
				}
			}
		}
	}
}

// keyOf is a key of arbitrary bytes.
func keyOf(b *[40]byte) packet.Key {
	return packet.Key{Src: packet.Addr(b[:16]), Dst: packet.Addr(b[16:32]),
		SrcPort: binary.BigEndian.Uint16(b[32:]), DstPort: binary.BigEndian.Uint16(b[34:]),
		Proto: b[36], Family: b[37], Zone: binary.BigEndian.Uint16(b[38:])}
}
