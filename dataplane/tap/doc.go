// Package tap is the dataplane's door to TAP devices, whose frames may be big:
// up to 64 KB that stand for many, with their checksum still partial. It
// knows virtio_net_hdr by way of dataplane/vnet, and no header of a protocol.
//
//	tun.go     making and opening TAP devices: the flags that all must agree on
//	spread.go  ... over the CPUs
//	queue.go   Queue, a frame.Device on one queue of a pod's TAP
//	recv.go    ... frames from the pod
//	send.go    ... frames to the pod
//	drops.go   what the kernel lost, before a Queue could read it or behind it
//	uplink.go  Uplink, which sends big frames out of a NIC that the kernel drives
//
// A TAP has no rings to share memory with: each frame is one readv from the
// kernel or one writev to it, a copy each. What makes up for the system call is
// the size of the frames.
//
// A descriptor of /dev/net/tun belongs to the network namespace that its thread
// was in when it was opened, and holds on to it (drivers/net/tun.c,
// tun_chr_open): a namespace does not end while a Queue of its TAP is open. Who
// opens one watches the namespace's path.
//
// What Recv and Send touch belongs to the worker's goroutine and needs no lock.
// All unsafe code is in files named *_unsafe.go. Kernel files are cited as of
// Linux 6.18.
package tap
