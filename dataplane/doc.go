// Package dataplane moves frames: workers, ports, the pipeline, and the
// responders for what is not fast-path traffic.
//
// A frame's way through a worker, a file each, in this order:
//
//	rx        worker.go     a burst from one port's device; the worker owns the frames from here
//	identify  intake.go     whose frame it is that came by the intake
//	ingress   ingress.go    pop the tunnel (uplinks), parse once into a record
//	follow    fragments.go  fragments get the key of their datagram's flow, or wait for the first
//	lookup    ingress.go    the one table lookup of an established flow
//	resolve   resolve.go    first packet of a flow only: anti-spoof → FIB → adjacency → new flow
//	rewrite   rewrite.go    TTL, then push the adjacency's header template into the headroom
//	big       big.go        frames that stand for many: whole, or cut
//	cut       cut.go        frames larger than the egress takes: segments, IP fragments
//	merge     merge.go      TCP segments from the wire become big frames
//	tx        tx.go         staged per egress port, one Send a port and burst; the device owns the frame from here
//	watch     capture.go    copies of frames for captures, where they are received, sent and dropped
//	respond   respond.go    ARP, ICMP echo and ICMP errors, within a budget a burst
//
// Every stage runs on the worker's own goroutine, which is locked to a thread.
// A frame that fails a stage is dropped there under exactly one drop.Reason.
//
// Tables come from package fib as immutable snapshots; flows live in
// dataplane/flow; frames and devices are those of dataplane/frame. Nothing here
// knows Kubernetes, netlink or a socket, and nothing on the packet path
// allocates, locks, reads the clock, or calls through an interface for a small frame.
package dataplane
