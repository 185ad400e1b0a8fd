package xsk

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"culvert/internal/packet"
)

// OwnPorts are ports of the node's own addresses whose packets are not its own stack's:
// those that pods leave the cluster by, and those that are mapped to pods.
type OwnPorts struct {
	Addrs  []netip.Addr // one of each family at most
	Ranges []PortRange
}

// PortRange is the ports from Low to High of a protocol (packet.ProtoTCP, ProtoUDP,
// ProtoSCTP), or of ProtoICMP: identifiers of echoes of either family.
type PortRange struct {
	Proto     uint8
	Low, High uint16
}

// The order of bpf/tunnel.h.
var ownKinds = map[uint8]int{packet.ProtoTCP: 0, packet.ProtoUDP: 1, packet.ProtoSCTP: 2, packet.ProtoICMP: 3}

const ownWords = 65536 / 64

type portBits [4 * ownWords]uint64

// Own is OwnPorts in the maps of a steering program. The owner of the program
// serialises its use.
type Own struct {
	ports              *ebpf.Map
	addrs, translating *ebpf.Variable
	have               portBits
}

// NewOwn finds the maps in a loaded program of bpf/tunnel.h. They live as long as coll, or
// until they are detached from it and closed.
func NewOwn(coll *ebpf.Collection) *Own {
	return &Own{ports: coll.Maps[steerMapOwnPorts], addrs: coll.Variables[steerVarOwnAddrs], translating: coll.Variables[steerVarTranslating]}
}

// Set makes those the ports.
func (o *Own) Set(want OwnPorts) error {
	var bits portBits
	for _, r := range want.Ranges {
		kind, ok := ownKinds[r.Proto]
		if !ok || r.High < r.Low {
			return fmt.Errorf("xsk: steering ports %d-%d of protocol %d: there is no such range", r.Low, r.High, r.Proto)
		}
		for p := int(r.Low); p <= int(r.High); p++ {
			bits[kind*ownWords+p/64] |= 1 << (p % 64)
		}
	}
	var addrs [2][16]byte
	for _, a := range want.Addrs {
		if a.Is4() {
			addrs[0] = a.As16()
		} else {
			addrs[1] = a.As16()
		}
	}
	for i, word := range bits {
		if word == o.have[i] {
			continue
		}
		if err := o.ports.Put(uint32(i), word); err != nil {
			return fmt.Errorf("xsk: steering the node's ports from %d on: %w", i%ownWords*64, err)
		}
		o.have[i] = word
	}
	if err := o.addrs.Set(addrs); err != nil {
		return fmt.Errorf("xsk: steering ports of %v: %w", want.Addrs, err)
	}
	on := uint32(0)
	if len(want.Ranges) > 0 && len(want.Addrs) > 0 {
		on = 1
	}
	if err := o.translating.Set(on); err != nil {
		return fmt.Errorf("xsk: steering ports of %v: %w", want.Addrs, err)
	}
	return nil
}
