package capture

import (
	"bytes"
	"testing"

	"culvert/dataplane/frame"
	kit "culvert/internal/pkttest"
)

// What a sender left to a device is completed, guessed or told, inside tunnels and
// around them; everything else stays as it is, and so does what is cut short.
func TestSettle(t *testing.T) {
	plain := func(ls ...kit.Layer) []byte { return kit.Frame(t, append([]kit.Layer{kit.Eth(mac1, mac2)}, ls...)...) }
	tcp := plain(kit.IP4("10.0.0.1", "10.0.0.2"), kit.TCP(1, 2), kit.Payload(301))
	udp6 := plain(kit.IP6("fd00::1", "fd00::2"), kit.UDP(1, 2), kit.Payload(33))
	tunnel := plain(kit.IP4("192.168.0.1", "192.168.0.2"), kit.UDP(50000, 4789), kit.VXLANHeader(7),
		kit.Eth(mac2, mac1), kit.IP4("10.244.1.2", "10.244.2.3"), kit.TCP(40000, 80), kit.Payload(20))
	sctp := plain(kit.IP4("10.0.0.1", "10.0.0.2"), kit.SCTP(1, 2), kit.Payload(12))
	noCRC := bytes.Clone(sctp)
	clear(noCRC[42:46])
	const innerTCP = 50 + 34
	partialInside := bytes.Clone(tunnel)
	copy(partialInside[50:], kit.SetPartial(partialInside[50:]))
	for _, c := range []struct {
		name string
		rec  Record
		have []byte
		cut  int
		want []byte
		sum  Checksum
	}{
		{name: "complete", have: tcp, want: tcp},
		{name: "partial TCP", have: kit.SetPartial(bytes.Clone(tcp)), want: tcp, sum: ChecksumCompleted},
		{name: "partial UDP over IPv6", have: kit.SetPartial(bytes.Clone(udp6)), want: udp6, sum: ChecksumCompleted},
		{name: "padded", have: kit.Pad(kit.SetPartial(bytes.Clone(tcp)), 9), want: kit.Pad(tcp, 9), sum: ChecksumCompleted},
		{name: "inside a tunnel", have: partialInside, want: tunnel, sum: ChecksumCompleted},
		{name: "inside a tunnel, told", rec: Record{Flags: frame.CsumPartial, CsumStart: innerTCP, CsumOffset: 16},
			have: partialInside, want: tunnel, sum: ChecksumCompleted},
		{name: "cut short", have: kit.SetPartial(bytes.Clone(tcp)), cut: 60, want: kit.SetPartial(bytes.Clone(tcp))[:60], sum: ChecksumPartial},
		{name: "SCTP", have: sctp, want: sctp},
		{name: "SCTP without its CRC", have: noCRC, want: sctp, sum: ChecksumCompleted},
		{name: "told about no packet, beyond the end", rec: Record{Flags: frame.CsumPartial, CsumStart: 60000, CsumOffset: 6},
			have: tcp, want: tcp, sum: ChecksumPartial},
	} {
		rec := c.rec
		rec.Data, rec.Length = bytes.Clone(c.have), uint32(len(c.have))
		if c.cut != 0 {
			rec.Data = rec.Data[:c.cut]
		}
		if got := rec.Settle(testVXLAN); got != c.sum {
			t.Errorf("%s: %d, want %d", c.name, got, c.sum)
		}
		if !bytes.Equal(rec.Data, c.want) {
			t.Errorf("%s:\n got %x\nwant %x", c.name, rec.Data, c.want)
		}
		if c.cut == 0 {
			if wrong := kit.CheckSums(rec.Data); wrong != "" {
				t.Errorf("%s: %s", c.name, wrong)
			}
		}
	}
}

// Whatever a device claims of whatever bytes, Settle stays inside of them and changes
// nothing but checksum fields: four bytes at most in each of three places.
func FuzzSettle(f *testing.F) {
	f.Add(kinds(f)["vxlan"], uint8(1), uint16(84), uint16(16), uint8(34), uint32(0))
	f.Add(kinds(f)["udp6"], uint8(0x21), uint16(54), uint16(6), uint8(54), uint32(9))
	f.Add([]byte{1}, uint8(1), uint16(0), uint16(0), uint8(0), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, flags uint8, start, offset uint16, outer uint8, more uint32) {
		rec := Record{Data: bytes.Clone(b), Length: uint32(len(b)) + more%70000, Flags: frame.Flags(flags), CsumStart: start, CsumOffset: offset,
			OuterL4: outer, SegSize: offset}
		rec.Settle(testVXLAN)
		if n := rec.Segments(); n < 1 {
			t.Errorf("%d segments", n)
		}
		changed := 0
		for i := range b {
			if b[i] != rec.Data[i] {
				changed++
			}
		}
		if len(rec.Data) != len(b) || changed > 12 {
			t.Errorf("%d bytes changed", changed)
		}
	})
}
