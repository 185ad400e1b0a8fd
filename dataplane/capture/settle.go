package capture

import (
	"encoding/binary"

	"culvert/dataplane/frame"
	"culvert/internal/packet"
)

// Checksum says what is the matter with a captured frame's transport checksum.
type Checksum uint8

// The states of a checksum.
const (
	ChecksumAsIs      Checksum = iota
	ChecksumPartial            // left to a device by the sender, and the capture has not all bytes to complete it
	ChecksumCompleted          // left to a device, and completed by Settle
)

// String is the state's word, empty for a checksum that nothing was done to.
func (c Checksum) String() string { return [...]string{"", "partial", "completed"}[c] }

// Settle completes, in r.Data, the checksums that the sender of the frame left to a
// device, so that nobody takes them for wrong: of the packet inside a tunnel first,
// for that of the tunnel covers it. vxlan are the UDP ports of tunnels.
func (r *Record) Settle(vxlan []uint16) (c Checksum) {
	var layers [maxLayers]layer
	n := walk(r.Data, vxlan, &layers)
	said := r.Flags&frame.CsumPartial != 0
	for i := n - 1; i >= 0; i-- {
		said = said && layers[i].l4 != int(r.CsumStart)
	}
	if said { // of no packet that was found
		c = r.complete(int(r.CsumStart), int(r.CsumOffset), len(r.Data))
	}
	for i := n - 1; i >= 0; i-- {
		c = max(c, r.settle(&layers[i]))
	}
	return c
}

// settle is Settle for one of the frame's packets.
func (r *Record) settle(l *layer) Checksum {
	if l.l4 == 0 || !l.whole {
		return ChecksumAsIs
	}
	end := l.end
	if end <= l.l4 { // beyond 64 KB, which the header cannot say
		end = int(r.Length)
	}
	if l.proto == packet.ProtoSCTP {
		return r.settleCRC(l.l4, end)
	}
	offset, ok := packet.ChecksumOffset(uint8(l.proto))
	if !ok || l.proto == ProtoARP || l.l4+offset+2 > len(r.Data) {
		return ChecksumAsIs
	}
	said := r.Flags&frame.CsumPartial != 0 && l.l4 == int(r.CsumStart) ||
		r.Flags&frame.SegOuterSum != 0 && l.l4 == int(r.OuterL4)
	if !said && !l.seeded(r.Data[l.l4+offset:], end) {
		return ChecksumAsIs
	}
	return r.complete(l.l4, offset, end)
}

// seeded reports whether a checksum field holds the sum of the pseudo header alone,
// as the parser guesses it: small frames come without a word from their device.
func (l *layer) seeded(field []byte, end int) bool {
	if l.proto != packet.ProtoTCP && l.proto != packet.ProtoUDP {
		return false
	}
	length, pseudo := uint32(end-l.l4), uint32(0)
	if l.v6 {
		pseudo = packet.PseudoSum6(&l.src, &l.dst, uint8(l.proto), length)
	} else {
		pseudo = packet.PseudoSum4(l.src.V4(), l.dst.V4(), uint8(l.proto), length)
	}
	return binary.BigEndian.Uint16(field) == packet.Fold(pseudo)
}

// complete completes the checksum at start and offset, over the bytes up to end.
func (r *Record) complete(start, offset, end int) Checksum {
	if end > len(r.Data) || start+offset+2 > end {
		return ChecksumPartial
	}
	packet.StoreChecksum(r.Data[start+offset:], packet.Sum(r.Data[start:end], 0))
	return ChecksumCompleted
}

// settleCRC completes the CRC32c of SCTP, whose field a sender that leaves it to a
// device has 0 in.
func (r *Record) settleCRC(l4, end int) Checksum {
	switch {
	case l4+packet.SCTPLen > len(r.Data) || packet.SCTP(r.Data[l4:]).Check() != 0:
		return ChecksumAsIs
	case end > len(r.Data):
		return ChecksumPartial
	}
	packet.CompleteSCTP(r.Data[l4:end])
	return ChecksumCompleted
}

// Segments is the number of frames that the record's is on a wire, 1 without SegSize.
func (r *Record) Segments() int {
	if r.SegSize == 0 {
		return 1
	}
	big := frame.Frame{Total: r.Length, SegSize: r.SegSize, HeaderLen: r.HeaderLen}
	if big.HeaderLen == 0 { // the worker had not parsed it yet
		big.HeaderLen = r.CsumStart + packet.UDPLen
		if at := int(r.CsumStart) + 12; r.Flags&frame.SegUDP == 0 && at < len(r.Data) {
			big.HeaderLen = r.CsumStart + uint16(r.Data[at]>>4)*4
		}
	}
	if uint32(big.HeaderLen) >= big.Total {
		return 1
	}
	return int(big.Segments())
}
