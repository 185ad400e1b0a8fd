package packet_test

import (
	"encoding/binary"
	"testing"

	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

func TestClampMSS(t *testing.T) {
	for _, tt := range []struct {
		name      string
		opts      []byte
		mss, most uint16
		want      uint16
		ok        bool
	}{
		{"larger", []byte{2, 4, 5, 0xb4}, 1460, 1410, 1410, true},
		{"equal", []byte{2, 4, 5, 0x82}, 1410, 1410, 1410, true},
		{"smaller", []byte{2, 4, 2, 0x18}, 536, 1410, 536, true},
		{"behind others", []byte{4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 5, 0xb4}, 1460, 1300, 1300, true},
		{"across two words", []byte{1, 2, 4, 5, 0xb4, 0, 0, 0}, 1460, 1391, 1391, true},
		{"across two words, all ones", []byte{1, 2, 4, 0xff, 0xff, 0, 0, 0}, 65535, 256, 256, true},
		{"none", []byte{1, 1, 4, 2}, 0, 1410, 0, false},
		{"none at all", nil, 0, 1410, 0, false},
		{"runs over", []byte{1, 1, 2, 4}, 0, 1410, 0, false},
	} {
		for seed := range uint64(200) {
			h := packet.TCP(random(seed, 20+len(tt.opts)))
			h[12] = byte(len(h) / 4 << 4)
			copy(h[20:], tt.opts)
			const pseudo = 0x1234
			sum := func() uint16 { return pkttest.Sum16(h, pseudo) }
			binary.BigEndian.PutUint16(h[16:], 0)
			binary.BigEndian.PutUint16(h[16:], ^sum())
			before := append(packet.TCP(nil), h...)
			mss, ok := h.ClampMSS(tt.most, false)
			if mss != tt.want || ok != tt.ok {
				t.Fatalf("%s: %d, %v, want %d, %v", tt.name, mss, ok, tt.want, tt.ok)
			}
			if got, _ := h.MSSOption(); got != tt.want || sum() != 0xffff {
				t.Fatalf("%s: the option is %d, the sum %#x", tt.name, got, sum())
			}
			if tt.mss <= tt.most && string(h) != string(before) {
				t.Fatalf("%s: nothing was to change", tt.name)
			}
			copy(h, before)
			if h.ClampMSS(tt.most, true); h.Check() != before.Check() {
				t.Fatalf("%s: a partial checksum changed", tt.name)
			}
		}
	}
}
