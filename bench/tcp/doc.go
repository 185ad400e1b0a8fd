// Package tcp measures how fast TCP runs between pods: through Culvert, side
// by side with the kernel doing the same, in one run on one machine.
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
// Run lets the pairs take their turns in every round, so that whatever else the
// machine does hits all alike, and reports medians and each round's ratio to
// the kernel. The traffic is iperf3's, with default offloads and the machine's
// congestion control.
//
// Everything happens in network namespaces of its own, which are anonymous and
// end with the process (package testbed); no packet leaves them.
package tcp
