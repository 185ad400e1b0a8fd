// Package pktgen sends frames by the kernel's packet generator, the module
// pktgen, through its files in /proc/net/pktgen
// (Documentation/networking/pktgen.rst of the kernel).
//
// Of what package load describes it can send plain UDP flows of one source, in
// turn: the same MACs, addresses and ports, of the same lengths. What else is in
// the frames is the module's own: a TTL of 32, IDs that count, and a payload with
// sequence numbers and times, over which the checksum is right. Lengths that vary
// come in its random order. Whatever it cannot send it refuses.
package pktgen
