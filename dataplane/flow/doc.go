// Package flow is the flow table: Culvert's conntrack. It finds the connection
// a packet belongs to, follows its state as Linux does, and keeps for each
// direction the verdict that the pipeline compiled.
//
// It knows packet keys and time in seconds, both given by the caller. It knows
// no frame, no port and no route: a verdict is three numbers to it.
//
// # Memory
//
// All entries and buckets live in one mapping outside the Go heap. Its size is
// fixed when the table is made: 256 bytes a connection at most, both directions
// included, from 64 k connections on.
//
//	windows  32 bytes each: what sequence numbers and verification tags are
//	         checked against. Only packets of TCP and SCTP look there.
//	entries  192 bytes each, three cache lines: the original direction's key and
//	         verdict, the reply's, and what both share. Entry 0 holds the head of
//	         the list of changed entries; index 0 means none.
//	buckets  64 bytes each: eight tags of a byte, eight references to an entry
//	         and direction, and how many keys went on to the next bucket.
//
// # States
//
// They are those of Linux's conntrack, by protocol:
//
//	tcp.go tcpstep.go tcpwindow.go  nf_conntrack_proto_tcp.c, windows included
//	glide.go                        the same for nearly all TCP packets
//	sctp.go                         nf_conntrack_proto_sctp.c
//	touch.go                        UDP, ICMP echo and all others
//	begin.go                        which packets make flows
//	related.go                      ICMP errors
//
// # Concurrency
//
// Workers call Lookup and the Entry's methods without locks. Insert, Sweep,
// Flush and whatever else changes or walks the table take its mutex, for a
// bounded number of entries at a time. An entry that was deleted is used again
// only when every worker has passed a point where it holds no entry, which it
// says with Quiesce. Until then a worker may go on using it: it counts packets
// that nobody reads.
//
// A window is read and written by plain loads and stores; window.go says why that
// is enough.
package flow
