// Package xskgen sends frames by AF_XDP, through the sockets of
// github.com/asavie/xdp: an implementation that shares nothing with our own
// rings nor with package xdpgen, whose frames it sends.
//
// It sleeps between bursts, so that the processor time it takes is in proportion
// to its rate: it is the generator of loads that leave the machine room, where
// xdpgen always takes a whole processor. At full speed it is the slower one.
// It sends on queue 0 of each device, in copy mode where the driver has no other.
package xskgen
