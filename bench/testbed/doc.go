// Package testbed builds the little network that a device under test stands
// in: pods, a node and the wire to other nodes, each a network namespace of
// its own.
//
//	pods eth0, … ── node ════ device under test ════ node cvbu0 ── cvbu1 wire
//	10.244.1.2, …      encapsulates  →               192.168.77.1  192.168.77.2, …
//	                   ←  decapsulates                             behind it 10.244.2.0/24
//
// The nodes beyond the wire are peers, some thousands if need be: the first 200 in
// the node's subnet, the others behind a router there, each with a /24 of
// 10.192.0.0/10 for its pods. The wire is all that there is of them.
//
// The namespaces are anonymous and every process started in one dies with it:
// whatever becomes of the benchmark, even kill -9, nothing is left behind but the
// device's files, which the next run removes. No device of theirs is connected to
// the machine's own network. To look inside
// while one is there: nsenter --net=/proc/PID/fd/N, as Space.Path says.
package testbed
