package dataplane

import (
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/packet"
)

// noteMSS remembers the maximum segment size that a SYN announces: what big
// frames of the other direction are cut to. Where that is configured, it is
// lowered before to what the tunnel takes.
func (w *worker) noteMSS(f *frame.Frame, rec *record, adj *fib.Adjacency) {
	if rec.info.TCPFlags&packet.TCPSyn == 0 || rec.info.Proto != packet.ProtoTCP || rec.info.L4 == 0 {
		return
	}
	h := packet.TCP(w.pool.Bytes(f.Addr, f.Len)[rec.info.L4:])
	mss, ok := uint16(0), false
	if w.eng.cfg.MSSClamp {
		mss, ok = h.ClampMSS(w.tunnelMSS(rec, adj), rec.info.Flags&packet.Partial != 0)
	} else {
		mss, ok = h.MSSOption()
	}
	if ok {
		rec.entry.SetMSS(rec.dir, mss)
	}
}

// tunnelMSS is the maximum segment size that the tunnel takes that a SYN leaves by,
// or came by: a peer that clamps nothing itself is told by us what its pods may
// expect to be sent. Without a tunnel it is no limit.
func (w *worker) tunnelMSS(rec *record, adj *fib.Adjacency) uint16 {
	if !adj.Kind.Tunnel() && rec.popped != 0 {
		_, adj = w.snap.Find(&rec.info.Key.Src)
	}
	if adj == nil || !adj.Kind.Tunnel() {
		return 65535
	}
	headers := uint16(packet.IPv4Len + packet.TCPLen) // RFC 6691: options are not counted
	if rec.info.Flags&packet.V6 != 0 {
		headers = packet.IPv6Len + packet.TCPLen
	}
	return max(adj.MTU, headers+minSegment) - headers
}
