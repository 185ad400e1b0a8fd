// Package bench measures how fast Culvert forwards, side by side with what
// people use today, in one run on one machine.
//
// A device under test stands in a testbed (package testbed), is built by a
// peer (package peer), and is loaded by a generator and measured by a sink in
// the kernel (package xdpgen). Run takes the devices in turn, A B A B, so that
// whatever else the machine does hits all alike, checks by samples that each
// does the work, and reports median, spread and the ratios of each round.
//
// Everything happens in network namespaces of its own; no packet leaves them.
package bench
