// Package testbed builds the little network that a device under test stands
// in: a pod, a node and the wire to a second node, each a network namespace of
// its own.
//
//	pod eth0 ── node ════ device under test ════ node cvbu0 ── cvbu1 wire
//	10.244.1.2      encapsulates  →              192.168.77.1   192.168.77.2,
//	                ←  decapsulates                             behind it 10.244.2.0/24
//
// The namespaces are anonymous and every process started in one dies with it:
// whatever becomes of the benchmark, even kill -9, nothing is left behind. No
// device of theirs is connected to the machine's own network. To look inside
// while one is there: nsenter --net=/proc/PID/fd/N, as Space.Path says.
package testbed
