package capture

import "culvert/internal/drop"

// MaxPorts bounds the indices of ports.
const MaxPorts = 4096

// Ports is a set of port indices.
type Ports [MaxPorts / 64]uint64

// Add adds a port.
func (p *Ports) Add(index uint16) { p[index%MaxPorts/64] |= 1 << (index % 64) }

// Has reports whether a port is in the set.
func (p *Ports) Has(index uint16) bool { return p[index%MaxPorts/64]>>(index%64)&1 != 0 }

// Spec says what a capture is of. It does not change while the capture runs.
type Spec struct {
	Ports      *Ports // nil is all
	Directions Directions
	Reason     drop.Reason // of drops; None is any
	Filter     Filter
	VXLAN      []uint16 // the UDP ports of tunnels
	Snaplen    int      // bytes of a frame, at most
}

// Tap is one capture's part in one worker.
type Tap struct {
	Spec *Spec
	Ring *Ring
}

// Wants reports whether the capture is of a frame that is seen like rec, and whose
// first bytes are b.
func (t *Tap) Wants(rec *Record, b []byte) bool {
	s := t.Spec
	return s.Directions>>rec.Direction&1 != 0 &&
		(s.Ports == nil || s.Ports.Has(rec.Port)) &&
		(s.Reason == drop.None || rec.Direction != Drop || rec.Reason == s.Reason) &&
		s.Filter.Match(b, s.VXLAN)
}
