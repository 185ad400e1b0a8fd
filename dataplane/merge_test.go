package dataplane

import (
	"bytes"
	"testing"

	"culvert/dataplane/frame"
	"culvert/internal/drop"
	"culvert/internal/memport"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// Both directions of a flow may come in one burst, and one take the other's place among
// the groups. They never become one, even if their numbers fit.
func TestDirectionsAreNotMerged(t *testing.T) {
	n1, _ := bigPair(t, gather)
	in := memport.New(n1.e.Pool(0))
	n1.addPort(PortSpec{Name: "intake", Kind: PortIntake}, in)
	key := func(from, to string, sport, dport uint16) *packet.Key {
		var info packet.Info
		f := kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(from, to), kit.TCP(sport, dport))
		if r := packet.Parse(f, len(f), &info); r != drop.None {
			t.Fatal(r)
		}
		return &info.Key
	}
	set := func(k *packet.Key) uint64 { return k.Hash() % groupSets }
	// A flow with both directions in one set, and others there that take all the places but
	// the one that is given away first.
	sport := uint16(1000)
	for set(key(ipA, ipC, sport, 80)) != set(key(ipC, ipA, 80, sport)) {
		sport++
	}
	inject := func(pod string, mac, from, to string, sport, dport, id uint16, seq uint32, fill byte) {
		f := kit.SetPartial(kit.Frame(t, kit.Eth(mac, gwMAC), kit.IP4(from, to, kit.DF(), kit.ID(id)),
			kit.TCP(sport, dport, kit.Flags("A"), kit.Seq(seq), kit.Ack(7)), kit.Bytes(bytes.Repeat([]byte{fill}, 2000)...)))
		frame.WriteTag(f, frame.Tag{Port: n1.pods[pod].port, Genuine: true})
		in.InjectBig(f, 1000, frame.SegTCP4)
	}
	macC := n1.pods["c"].mac.String()
	for other, have := uint16(20000), 0; have < groupWays-1; other++ {
		if set(key(ipA, ipC, other, 80)) == set(key(ipA, ipC, sport, 80)) {
			inject("a", macA, ipA, ipC, other, 80, 1, 1, 'o')
			have++
		}
	}
	inject("a", macA, ipA, ipC, sport, 80, 1, 1000, 'a')
	inject("c", macC, ipC, ipA, 80, sport, 3, 3000, 'c')
	n1.step()
	for _, s := range n1.pods["c"].dev.TakeSent() {
		if bytes.IndexByte(s.Data[54:], 'c') >= 0 {
			t.Errorf("pod c was sent its own bytes: %s", offloads(s))
		}
	}
	if got := one(t, n1.pods["a"].dev.TakeSent()); len(got.Data) != 54+2000 || got.Data[54] != 'c' {
		t.Errorf("pod a was sent %s", offloads(got))
	}
	n1.wantDrops(drop.None, 0)
}
