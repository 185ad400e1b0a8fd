package packet

import (
	"culvert/internal/drop"
)

// Fragmenter cuts an IPv4 packet into fragments, as ip_do_fragment of
// net/ipv4/ip_output.c does. It writes headers only; the caller copies the
// payload, from however many chunks, behind each:
//
//	r := f.Init(ip, info, mtu)
//	for more := true; more; {
//		hdrLen, off, n, more = f.Next(dst)
//		copy payload[off:off+n] to dst[hdrLen:]
//	}
//
// A partial transport checksum must be complete before: it covers all fragments.
// A Fragmenter keeps no reference to the packet.
type Fragmenter struct {
	hdr    [60]byte
	hdrLen int
	off    int // of the next fragment in this packet's payload
	left   int // payload bytes still to send
	size   int // payload bytes of every fragment but the last
	frag   uint16
}

// Init prepares to cut the packet that starts at ip, from its IP header on, into
// fragments of at most mtu bytes. info is the packet's. The packet may be a
// fragment itself. It refuses a packet that may not be fragmented or is not
// IPv4 with TooBig, and an mtu that holds no 8 bytes of payload likewise.
func (f *Fragmenter) Init(ip []byte, info *Info, mtu int) drop.Reason {
	if !info.Has(V4) || info.Has(DF) || len(ip) < IPv4Len {
		return drop.TooBig
	}
	n := IPv4(ip).HeaderLen()
	if n < IPv4Len || len(ip) < n || int(info.L3Len) < n || mtu < n+8 {
		return drop.TooBig
	}
	f.hdrLen = n
	copy(f.hdr[:n], ip)
	f.frag = IPv4(ip).Frag()
	f.off = 0
	f.left = int(info.L3Len) - n
	f.size = (mtu - n) &^ 7
	return drop.None
}

// Next writes the next fragment's IP header to dst, which has room for it, and
// returns the header's length, which part of the packet's payload belongs behind
// it, and whether there are more fragments to come.
func (f *Fragmenter) Next(dst []byte) (hdrLen, payloadOff, payloadLen int, more bool) {
	payloadOff, payloadLen = f.off, f.left
	if f.left > f.size {
		payloadLen, more = f.size, true
	}
	h := IPv4(dst[:f.hdrLen])
	copy(h, f.hdr[:f.hdrLen])
	h.SetTotalLen(f.hdrLen + payloadLen)
	frag := f.frag + uint16(f.off/8)
	if more {
		frag |= IPv4MF
	}
	h.SetFrag(frag)
	h.SetCheck()
	if f.off == 0 {
		clearOptions(f.hdr[IPv4Len:f.hdrLen])
	}
	f.off += payloadLen
	f.left -= payloadLen
	return f.hdrLen, payloadOff, payloadLen, more
}

// clearOptions replaces the options that only the first fragment carries with
// no-operations: ip_options_fragment of net/ipv4/ip_options.c (RFC 791 3.1).
func clearOptions(opts []byte) {
	for len(opts) > 1 {
		n := int(opts[1])
		switch {
		case opts[0] == optEnd:
			return
		case opts[0] == optNop:
			n = 1
		case n < 2 || n > len(opts):
			return
		case opts[0]&optCopied == 0:
			for i := range n {
				opts[i] = optNop
			}
		}
		opts = opts[n:]
	}
}

// Fragment4 writes fragment after fragment of a contiguous packet into bufs,
// each of at least mtu bytes, and their lengths into lens. It returns how many
// there are, or TooBig when the packet may not be cut, NoBuffer when bufs and
// lens are too few.
func Fragment4(bufs [][]byte, lens []int, ip []byte, info *Info, mtu int) (int, drop.Reason) {
	var f Fragmenter
	if r := f.Init(ip, info, mtu); r != drop.None {
		return 0, r
	}
	payload := ip[f.hdrLen:info.L3Len]
	for i := 0; i < min(len(bufs), len(lens)); i++ {
		n, off, size, more := f.Next(bufs[i])
		lens[i] = n + copy(bufs[i][n:], payload[off:off+size])
		if !more {
			return i + 1, drop.None
		}
	}
	return 0, drop.NoBuffer
}
