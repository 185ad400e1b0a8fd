// Package intake receives the frames of many devices by one pair of sockets for
// each worker, where a device has no native XDP worth having: a pod's veth.
//
// An AF_XDP socket at the veth itself gets a pod's GSO frames by way of two copies,
// and without their segment size. So a tcx program at the device tells frames apart:
//
//	pod ═ veth ─tcx─┬─ small ─→ cvi…s ═ cvi…s: generic XDP, AF_XDP sockets
//	                └─ GSO ───→ cvi…b ═ cvi…b: packet sockets with virtio_net_hdr
//	                  (host's namespace) (a namespace of its own)
//
// Small frames that generic XDP does not see, those that a pod's own tc program has
// redirected, go on to the packet sockets.
//
// The far ends are in a network namespace that has no name and no other device, so
// that neither the host's stack nor its administrator meets the frames. Which port a
// frame came by is said in place of its source address: frame.ReadTag.
//
// What lives here is the devices, the programs, and the order of the frames. The
// sockets are dataplane/xsk's and dataplane/psock's. What is done with a frame is
// not decided here.
//
//	intake.go     Intake: making all of it, and ending it
//	namespace.go  ... the namespace
//	veth.go       ... the veths
//	programs.go   ... the programs in it
//	attach.go     Attachment: a device whose frames are taken
//	standing.go   ... and the programs of pods, which outlive the process
//	queue.go      Queue: one worker's end, a frame.Device
//	order.go      ... small and big frames in the order in which they were sent
//	fifo.go       ... and those that wait for their turn
//	share.go      ... how much of a queue each port may have
//
// The process takes everything along but the pods' programs (standing.go): the namespace
// is held by descriptors, the veths end with it, and the other programs are attached by
// bpf_link. From then on what a pod sends is dropped, until the next process's
// intake puts its own programs in the place of those.
//
// Queues belong to their workers' goroutines; the rest is the control plane's, and
// safe from any goroutine. All unsafe code is in files named *_unsafe.go. Kernel
// files are cited as of Linux 6.18.
package intake
