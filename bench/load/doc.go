// Package load says what a generator of frames sends: which frames, in which
// order, how many and how fast. It sends nothing itself and knows no kernel:
// bench/xdpgen, bench/xskgen and bench/pktgen do, and send what a Plan holds.
//
// All frames are UDP over IPv4, as a pod sends them or as they come out of a
// tunnel. They differ by their flow, a number from which everything else
// follows: the end that sends, the destination, and the ports. The order of
// the flows and of the frames' lengths is fixed by the configuration, so that
// two generators send the same frames.
package load
