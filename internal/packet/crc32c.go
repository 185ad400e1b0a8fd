package packet

import (
	"encoding/binary"
	"hash/crc32"
)

// castagnoli is the table of CRC32c; hash/crc32 uses the CPU's instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32c appends the bytes of b to a CRC32c that starts at 0.
func CRC32c(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }

// CompleteSCTP writes the CRC32c of an SCTP packet, from its common header to
// its end, contiguous (RFC 9260 6.8 and appendix A). The sender leaves it empty
// when its device claims NETIF_F_SCTP_CRC, as veth does.
func CompleteSCTP(b []byte) {
	binary.LittleEndian.PutUint32(b[8:], 0)
	binary.LittleEndian.PutUint32(b[8:], CRC32c(0, b))
}
