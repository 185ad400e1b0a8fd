package dataplane

import (
	"culvert/dataplane/capture"
	"culvert/dataplane/frame"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// identify finds the port that a frame from the intake came by, and gives the
// frame its source address back, in whose place the steering program wrote the
// port. A frame of a port that is gone is dropped.
func (w *worker) identify(f *frame.Frame, rec *record) bool {
	w.in, rec.in = w.from, w.from
	b := w.pool.Bytes(f.Addr, f.Len)
	if len(b) < packet.EthernetLen {
		w.discard(f, rec, drop.FrameTooShort)
		return false
	}
	tag, ok := frame.ReadTag(b)
	in := w.ports[tag.Port%maxPorts]
	if !ok || in == nil {
		w.discard(f, rec, drop.PortGone)
		return false
	}
	if tag.Genuine {
		packet.Ethernet(b).SetSrc(in.port.spec.PeerMAC)
	}
	if in.rxPackets == 0 {
		w.received = append(w.received, in)
	}
	w.in, rec.in = in, in
	if tag.VLAN {
		if len(w.taps) != 0 {
			w.watch(f, in, capture.Rx, drop.None)
		}
		in.rxPackets++
		in.rxBytes += uint64(f.Total)
		w.discard(f, rec, drop.EthertypeUnsupported) // as the frame with its tag would be
		return false
	}
	return true
}
