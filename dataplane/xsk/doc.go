// Package xsk is the dataplane's door to the kernel's network devices: AF_XDP
// sockets over the worker's memory, and the XDP programs that steer frames
// into them.
//
// A Umem stands for one worker's frame.Pool. It opens Sockets, one for each
// queue of each port, which all share the pool, so that a frame received from
// a pod is sent to the NIC from the same bytes. A Socket is a frame.Device:
// four rings, a file each, in the order a chunk meets them:
//
//	fill.go        free chunks to the kernel
//	rx.go          received frames from the kernel
//	tx.go          frames to send to the kernel
//	completion.go  sent chunks back from the kernel
//
// An Attachment is an XDP program on a device and the map from receive queue
// to socket. It is a bpf_link: when the process dies, the kernel detaches it.
//
// Everything that Recv and Send touch belongs to the worker's goroutine and
// needs no lock. Opening, closing, attaching and Stats are for the control
// plane. All unsafe code is in files named *_unsafe.go. Kernel files are cited
// as of Linux 6.18.
package xsk
