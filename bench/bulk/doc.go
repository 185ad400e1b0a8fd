// Package bulk measures how fast TCP and UDP run between pods: through Culvert, and
// through the kernel doing the same.
//
//	pod ── node cvb-1 ── cvbu0 ════ wire ════ cvbu1 ── node cvb-2 ── pod
//	└──────── local: both pods on one node        MTU 1500, VXLAN in it
//
// A Pair says what the node of either end is: the kernel, routing between veths
// and into VXLAN as Flannel sets it up, or culvertd with pods on veths or taps.
// A Scenario says what is between the pods: nothing but the node, a wire that
// passes big frames whole, as two virtual machines of one host have it, or a
// wire that takes single MTU-sized frames only.
//
// Measure is one turn of a pair; who takes turns, and how often, is package run's
// affair. The traffic is iperf3's, with default offloads: TCP with the machine's
// congestion control, or UDP as fast as the sender can.
//
// Everything happens in network namespaces of its own, which are anonymous and
// end with the process (package testbed); no packet leaves them.
package bulk
