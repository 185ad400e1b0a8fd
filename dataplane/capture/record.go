package capture

import (
	"encoding/binary"

	"culvert/dataplane/frame"
	"culvert/internal/drop"
)

// Direction is where on its way a frame was seen.
type Direction uint8

// The directions.
const (
	Rx   Direction = iota // received by a port, before anything was done to it
	Tx                    // handed to a port's device
	Drop                  // discarded, as it was then
	numDirections
)

// String is the direction's word.
func (d Direction) String() string { return [...]string{"rx", "tx", "drop"}[d%numDirections] }

// Directions is a set of them, a bit each.
type Directions uint8

// Any are all directions.
const Any = Directions(1<<numDirections - 1)

// Of is the set of one direction.
func Of(d Direction) Directions { return 1 << d }

// Record is one frame as it was seen.
type Record struct {
	// Data are the frame's first bytes, at most as many as asked for. They lie in
	// the ring until the record is popped.
	Data []byte
	// Time is when the burst began that the frame was in, in ns since 1970.
	Time int64
	// Length is that of the whole frame, in bytes.
	Length uint32
	// Port is the index of the port that received, sent, or counted the frame.
	Port      uint16
	Direction Direction
	Reason    drop.Reason // of a drop
	// The rest is frame.Frame's.
	SegSize, HeaderLen    uint16
	CsumStart, CsumOffset uint16
	OuterL4               uint8
	Flags                 frame.Flags
}

// A record in a ring is a header and the bytes, padded to align.
//
//	0  its size, u32; 0 is no record but the end of the ring's memory
//	4  bytes of data, u32
//	8  time
//	16 length, u32
//	20 port, u16; 22 direction; 23 reason
//	24 segment size, 26 header length, 28 checksum's start, 30 its offset, u16 each
//	32 flags; 33 offset of the outer UDP header
const (
	headerLen = 40
	align     = 8
)

// put writes the header of a record of so many bytes.
func (r *Record) put(b []byte, size, data int) {
	_ = b[headerLen-1]
	le := binary.LittleEndian
	le.PutUint32(b, uint32(size))
	le.PutUint32(b[4:], uint32(data))
	le.PutUint64(b[8:], uint64(r.Time))
	le.PutUint32(b[16:], r.Length)
	le.PutUint16(b[20:], r.Port)
	b[22], b[23] = uint8(r.Direction), uint8(r.Reason)
	le.PutUint16(b[24:], r.SegSize)
	le.PutUint16(b[26:], r.HeaderLen)
	le.PutUint16(b[28:], r.CsumStart)
	le.PutUint16(b[30:], r.CsumOffset)
	b[32], b[33] = uint8(r.Flags), r.OuterL4
}

// get reads what put wrote, and the data behind it.
func (r *Record) get(b []byte) {
	le := binary.LittleEndian
	*r = Record{
		Data: b[headerLen : headerLen+le.Uint32(b[4:])],
		Time: int64(le.Uint64(b[8:])), Length: le.Uint32(b[16:]), Port: le.Uint16(b[20:]),
		Direction: Direction(b[22]), Reason: drop.Reason(b[23]),
		SegSize: le.Uint16(b[24:]), HeaderLen: le.Uint16(b[26:]),
		CsumStart: le.Uint16(b[28:]), CsumOffset: le.Uint16(b[30:]),
		Flags: frame.Flags(b[32]), OuterL4: b[33],
	}
}
