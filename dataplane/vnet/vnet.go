// Package vnet translates between a frame's offloads and struct virtio_net_hdr
// (include/uapi/linux/virtio_net.h), which packet sockets and TAP devices put in
// front of every frame: is the checksum partial, is the frame to be cut, and
// into what.
//
// It knows bytes and frames and no descriptor: dataplane/psock and
// dataplane/tap do the system calls.
//
//	vnet.go    headers
//	gather.go  the places of a frame's chunks, for such a call
package vnet

import (
	"encoding/binary"

	"culvert/dataplane/frame"
)

// Sizes of the header in bytes.
const (
	// Len is sizeof(struct virtio_net_hdr): all that packet sockets know.
	Len = 10
	// TunnelLen is sizeof(struct virtio_net_hdr_v1_hash_tunnel): a TAP device's
	// with TUN_F_UDP_TUNNEL_GSO, since Linux 6.17.
	TunnelLen = 24
)

// EtherLen is the least that is a frame: struct ethhdr, in bytes.
const EtherLen = 14

// Flags and GSO types of the header.
const (
	needsCsum = 1
	outerCsum = 8 // VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM

	gsoNone   = 0
	gsoTCP4   = 1
	gsoTCP6   = 4
	gsoUDP    = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
	gsoTunnel = 0x20
	gsoTunl6  = 0x40
	gsoECN    = 0x80
)

// Offsets.
const (
	offFlags      = 0
	offType       = 1
	offHeaderLen  = 2
	offSegSize    = 4
	offCsumStart  = 6
	offCsumOffset = 8
	offOuterL4    = 20
	offInnerL3    = 22
)

// outerUDP6 is the least offset of an outer UDP header over IPv6: 14 + 40.
const outerUDP6 = 54

// innerL3 is how far the inner IP header is behind the outer UDP header: UDP,
// VXLAN and Ethernet header.
const innerL3 = 8 + 8 + 14

// Put writes f's header to h, which is Len or TunnelLen bytes long; for a frame
// with OuterL4 it must be TunnelLen. The fields are in the machine's byte order,
// as a packet socket has them and a TAP device without TUNSETVNETLE.
func Put(h []byte, f *frame.Frame) {
	ne := binary.NativeEndian
	clear(h)
	if f.Flags&frame.CsumPartial != 0 {
		h[offFlags] = needsCsum
		ne.PutUint16(h[offCsumStart:], f.CsumStart)
		ne.PutUint16(h[offCsumOffset:], f.CsumOffset)
	}
	if f.SegSize == 0 {
		return
	}
	ne.PutUint16(h[offHeaderLen:], f.HeaderLen)
	ne.PutUint16(h[offSegSize:], f.SegSize)
	h[offType] = gsoType(f.Flags)
	if f.OuterL4 != 0 {
		if f.Flags&frame.SegOuterSum != 0 {
			h[offFlags] |= outerCsum
		}
		h[offType] |= gsoTunnel
		if f.OuterL4 >= outerUDP6 {
			h[offType] ^= gsoTunnel | gsoTunl6
		}
		ne.PutUint16(h[offOuterL4:], uint16(f.OuterL4))
		ne.PutUint16(h[offInnerL3:], uint16(f.OuterL4)+innerL3)
	}
}

func gsoType(flags frame.Flags) (t uint8) {
	switch {
	case flags&frame.SegTCP4 != 0:
		t = gsoTCP4
	case flags&frame.SegTCP6 != 0:
		t = gsoTCP6
	case flags&frame.SegUDP != 0:
		t = gsoUDP
	}
	if flags&frame.SegCWR != 0 {
		t |= gsoECN
	}
	return t
}

// Get sets f's offloads from the header in front of a received frame. It reports
// false for a GSO type that it does not know. What the header says of lengths is
// a hint (Linux: "hdr_len ... is not reliable"): HeaderLen is left to the parser.
func Get(h []byte, f *frame.Frame) bool {
	ne := binary.NativeEndian
	if h[offFlags]&needsCsum != 0 {
		f.Flags |= frame.CsumPartial
		f.CsumStart = ne.Uint16(h[offCsumStart:])
		f.CsumOffset = ne.Uint16(h[offCsumOffset:])
	}
	t := h[offType]
	if t == gsoNone {
		return true
	}
	switch t &^ (gsoECN | gsoTunnel | gsoTunl6) {
	case gsoTCP4:
		f.Flags |= frame.SegTCP4
	case gsoTCP6:
		f.Flags |= frame.SegTCP6
	case gsoUDP:
		f.Flags |= frame.SegUDP
	default:
		return false
	}
	if t&gsoECN != 0 {
		f.Flags |= frame.SegCWR
	}
	f.SegSize = ne.Uint16(h[offSegSize:])
	return f.SegSize != 0
}

// Accept is Get for a frame of n bytes that came with the header, first of them in
// its first chunk. It reports false, too, for a frame that is too short and for
// offloads that do not hold together: a checksum that is not in the first chunk, and
// a frame to be cut without one that is partial. They are the sending pod's
// kernel's, which has them from a packet socket of the pod at times.
func Accept(h []byte, n, first uint32, f *frame.Frame) bool {
	if n < EtherLen || !Get(h, f) {
		return false
	}
	if f.Flags&frame.CsumPartial == 0 {
		return f.SegSize == 0
	}
	return f.CsumStart >= EtherLen && uint32(f.CsumStart)+uint32(f.CsumOffset)+2 <= first
}
