package packet_test

import (
	"fmt"
	"slices"
	"strings"

	"culvert/internal/packet"
	"culvert/internal/pkttest"

	"github.com/google/gopacket/layers"
)

// mergeCase is a flow to merge.
type mergeCase struct {
	name string
	segs []seg
	// anyOrder: Linux lets a packet that can be in no group overtake the group.
	anyOrder bool
	// newest: Linux before 6.18 sees it otherwise.
	newest bool
}

// changes are what may differ in one segment of a flow.
func changes() map[string]func(*seg) {
	all := map[string]func(*seg){
		"TTL":       func(s *seg) { s.ttl-- },
		"ECN":       func(s *seg) { s.tos ^= 1 },
		"DSCP":      func(s *seg) { s.tos ^= 4 },
		"shorter":   func(s *seg) { s.size-- },
		"longer":    func(s *seg) { s.size++ },
		"one byte":  func(s *seg) { s.size = 1 },
		"twice":     func(s *seg) { s.size *= 2 },
		"empty":     func(s *seg) { s.size = 0 },
		"ID + 1":    func(s *seg) { s.id++ },
		"ID - 1":    func(s *seg) { s.id-- },
		"ID 0":      func(s *seg) { s.id = 0 },
		"DF":        func(s *seg) { s.frag ^= packet.IPv4DF },
		"not there": nil,
	}
	for name, change := range map[string]func(*seg){
		"seq + 1":     func(s *seg) { s.seq++ },
		"seq - 1":     func(s *seg) { s.seq-- },
		"duplicate":   func(s *seg) { s.seq -= uint32(s.size) },
		"ack":         func(s *seg) { s.ack++ },
		"window":      func(s *seg) { s.window-- },
		"urgent":      func(s *seg) { s.urgent++ },
		"option":      func(s *seg) { s.options = option(12) },
		"timestamp":   func(s *seg) { s.options = stamp(4, 2) },
		"stamp echo":  func(s *seg) { s.options = stamp(1, 5) },
		"longer opts": func(s *seg) { s.options = option(16) },
	} {
		all["tcp "+name] = change
	}
	return all
}

// stamp is a timestamp option as Linux sends it.
func stamp(value, echo byte) func(*layers.TCP) {
	return func(h *layers.TCP) {
		nop()(h)
		nop()(h)
		pkttest.TCPOption(layers.TCPOptionKindTimestamps, 0, 0, 0, value, 0, 0, 0, echo)(h)
	}
}

// edit changes segment i of a flow; nil leaves it out. With follow the rest
// continues the changed segment, otherwise it is as it was.
func edit(flow []seg, i int, change func(*seg), follow bool) []seg {
	if change == nil {
		return append(flow[:i], flow[i+1:]...)
	}
	change(&flow[i])
	for j := i + 1; j < len(flow) && follow; j++ {
		flow[j] = flow[j-1].next()
	}
	return flow
}

// mergeCases are flows that differ from one that can be merged in one thing.
func mergeCases() (all []mergeCase) {
	for _, kind := range kinds {
		all = append(all, plainCases(kind)...)
		for name, change := range changes() {
			ofTCP := strings.HasPrefix(name, "tcp")
			ofIPv4 := strings.HasPrefix(name, "ID") || name == "DF"
			if kind.udp && ofTCP || kind.v6 && ofIPv4 {
				continue
			}
			for i := range 4 {
				// An empty datagram overtakes, and ends no group.
				if name == "empty" && kind.udp && i != 3 {
					continue
				}
				for _, follow := range []bool{false, true} {
					n := fmt.Sprintf("%v/%s/%d follow=%v", kind, name, i, follow)
					all = append(all, mergeCase{name: n, segs: edit(kind.flow(4, 100), i, change, follow), anyOrder: name == "empty" && kind.udp})
				}
			}
		}
		for i, swapped := range [][]int{{1, 0, 2, 3}, {0, 2, 1, 3}, {0, 1, 3, 2}, {3, 2, 1, 0}, {0, 0, 1, 2}} {
			flow := kind.flow(4, 100)
			var segs []seg
			for _, j := range swapped {
				segs = append(segs, flow[j])
			}
			all = append(all, mergeCase{name: fmt.Sprintf("%v/order %d", kind, i), segs: segs})
		}
	}
	all = append(all, idCases()...)
	all = append(all, flagCases()...)
	all = append(all, overtaking()...)
	return append(all, fullCases()...)
}

// plainCases have nothing to object to.
func plainCases(kind seg) (all []mergeCase) {
	for n := 1; n <= 5; n++ {
		for _, size := range []int{1, 2, 99, 100, 1448} {
			all = append(all, mergeCase{name: fmt.Sprintf("%v/%d of %d", kind, n, size), segs: kind.flow(n, size)})
		}
	}
	if kind.udp {
		return all
	}
	for n := 0; n <= 40; n++ {
		kind.options = option(n)
		all = append(all, mergeCase{name: fmt.Sprintf("%v/options of %d", kind, n), segs: kind.flow(3, 100)})
		if n < 3 {
			continue
		}
		for i := 2; i < n; i++ { // any byte of the option's data
			other := pkttest.Pattern(n - 2)
			other[i-2] ^= 0x80
			change := func(s *seg) { s.options = pkttest.TCPOption(254, other...) }
			all = append(all, mergeCase{name: fmt.Sprintf("%v/options of %d, byte %d", kind, n, i), segs: edit(kind.flow(3, 100), 1, change, true)})
		}
	}
	return all
}

// idCases are IPv4 identifications that count, or do not, with DF and without.
func idCases() (all []mergeCase) {
	for _, kind := range []seg{{}, {udp: true}} {
		for _, frag := range []uint16{0, packet.IPv4DF, 0x8000, 0x8000 | packet.IPv4DF} {
			kind.frag = frag
			for _, start := range []uint16{0, 5, 0xfffe, 0xffff} {
				for _, steps := range [][]uint16{
					{1, 1, 1}, {0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {0, 1, 1}, {1, 0, 0}, {1, 0, 1}, {1, 1, 0},
					{2, 1, 1}, {2, 2, 2}, {1, 2, 1}, {0xffff, 0xffff, 0xffff}, {0x100, 0x100, 0x100}, {0, 2, 1}, {0, 3, 1},
				} {
					flow := kind.flow(4, 100)
					id := start
					for i := range flow {
						flow[i].id = id
						if i < len(steps) {
							id += steps[i]
						}
					}
					all = append(all, mergeCase{name: fmt.Sprintf("%v/frag %#x/ID %#x %v", kind, frag, start, steps), segs: flow, newest: frag == 0 && slices.Contains(steps, 0)})
				}
			}
		}
	}
	return all
}

// flagCases have all TCP flags in one of the first three of four segments, or all.
func flagCases() (all []mergeCase) {
	for _, kind := range kinds[:2] {
		for flags := range 256 {
			letters := flagLetters(flags)
			for i := range 4 {
				flow := kind.flow(4, 100)
				if i < 3 {
					flow[i].flags = letters
				} else {
					for j := range flow {
						flow[j].flags = letters
					}
				}
				all = append(all, mergeCase{name: fmt.Sprintf("%v/flags %s/%d", kind, letters, i), segs: flow, newest: letters == "AC"})
			}
		}
	}
	return all
}

// overtaking are packets that Linux delivers before the group they came behind.
func overtaking() (all []mergeCase) {
	for _, kind := range kinds {
		changes := map[string]func(*seg){
			"checksum": func(s *seg) { s.badSum = true },
			"label":    func(s *seg) { s.label++ },
		}
		if kind.udp {
			changes["none"] = func(s *seg) { s.zeroSum = true }
			changes["UDP length - 1"] = func(s *seg) { s.udpLen = packet.UDPLen + s.size - 1 }
			changes["UDP length 8"] = func(s *seg) { s.udpLen = packet.UDPLen }
		}
		if !kind.v6 {
			changes["IP options"] = func(s *seg) { s.ipOptions = 4 }
			changes["first fragment"] = func(s *seg) { s.frag |= packet.IPv4MF }
			changes["fragment"] = func(s *seg) { s.frag |= 8 }
		}
		for name, change := range changes {
			last := edit(kind.flow(4, 100), 3, change, false)
			all = append(all, mergeCase{name: fmt.Sprintf("%v/%s last", kind, name), segs: last, anyOrder: true})
			each := kind.flow(4, 100)
			for i := range each {
				change(&each[i])
			}
			all = append(all, mergeCase{name: fmt.Sprintf("%v/%s all", kind, name), segs: each})
		}
	}
	return all
}

// fullCases fill a packet, and a datagram's group.
func fullCases() (all []mergeCase) {
	for _, kind := range kinds {
		hdr := 40 // bytes behind which the payload of the longest packet starts
		if kind.udp {
			hdr -= packet.TCPLen - packet.UDPLen
		} else {
			hdr += 12 // timestamps
		}
		if kind.v6 {
			hdr += packet.IPv6Len - packet.IPv4Len
		}
		for d := -2; d <= 2; d++ {
			flow := kind.flow(6, 16000)
			flow = edit(flow, 4, func(s *seg) { s.size = 65535 - hdr - 4*16000 + d }, true)
			all = append(all, mergeCase{name: fmt.Sprintf("%v/full %+d", kind, d), segs: flow})
		}
		for _, n := range []int{45, 46, 47, 63} {
			all = append(all, mergeCase{name: fmt.Sprintf("%v/%d of 1448", kind, n), segs: kind.flow(n, 1448)})
		}
		for _, n := range []int{63, 64, 65} {
			if n > 64 && !kind.udp {
				continue // a poll's budget, which ends all groups
			}
			all = append(all, mergeCase{name: fmt.Sprintf("%v/%d of 10", kind, n), segs: kind.flow(n, 10)})
		}
		all = append(all, mergeCase{name: fmt.Sprintf("%v/longest", kind), segs: kind.flow(2, 65535-hdr)})
	}
	return all
}
