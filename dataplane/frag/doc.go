// Package frag knows which fragments belong together: later fragments of a
// datagram have no ports, and follow the flow of the first one, which has.
//
// It knows keys, offsets, lengths, seconds that the caller gives, and numbers
// for frames that the caller keeps. It knows no frame, port, socket, goroutine or
// clock, and puts nothing together: fragments pass one by one.
//
// What is refused follows Linux: ip_frag_queue of net/ipv4/ip_fragment.c,
// ip6_frag_queue of net/ipv6/reassembly.c and inet_frag_queue_insert of
// net/ipv4/inet_fragment.c. A fragment that Linux would drop alone is dropped alone; one for
// which it would drop the datagram condemns what is still to come of it.
//
// A Tracker belongs to one worker. All its memory is allocated when it is made.
package frag
