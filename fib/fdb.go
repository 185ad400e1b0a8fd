package fib

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"culvert/internal/packet"
)

// FDBEntry says behind which remote VTEP a MAC address of a VXLAN network is.
type FDBEntry struct {
	VNI uint32 // 24 bits
	MAC packet.MAC
	Dst netip.Addr // the VTEP's underlay address
	// Flags are those of 'bridge fdb', separated by spaces.
	Flags string
}

// fdbKey makes a prefix of a VNI and a MAC, so that the FDB is a persistent
// table like the others. fd keeps it out of the range of mapped IPv4.
func fdbKey(vni uint32, mac packet.MAC) netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint32(b[:], vni&0xffffff|0xfd000000)
	copy(b[4:], mac[:])
	return netip.PrefixFrom(netip.AddrFrom16(b), 80)
}

// SetFDB adds e, or replaces the entry of the same VNI and MAC.
func (t *Table) SetFDB(e FDBEntry) {
	e.VNI &= 0xffffff
	key := fdbKey(e.VNI, e.MAC)
	if old, had := t.fdb.t.Get(key); had && old == e {
		return
	}
	t.fdb.set(key, e)
	t.dirty = true
}

// DeleteFDB removes an entry and reports whether there was one.
func (t *Table) DeleteFDB(vni uint32, mac packet.MAC) bool {
	key := fdbKey(vni, mac)
	if _, had := t.fdb.t.Get(key); !had {
		return false
	}
	t.fdb.delete(key)
	t.dirty = true
	return true
}

// FDBEntry is the entry of a VNI and MAC.
func (s *Snapshot) FDBEntry(vni uint32, mac packet.MAC) (FDBEntry, bool) {
	return s.fdb.Get(fdbKey(vni, mac))
}

// FDB yields all entries in the order of VNI and MAC.
func (s *Snapshot) FDB() iter.Seq[FDBEntry] {
	return func(yield func(FDBEntry) bool) {
		for _, e := range s.fdb.AllSorted() {
			if !yield(e) {
				return
			}
		}
	}
}
