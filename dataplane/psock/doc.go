// Package psock sends and receives whole frames by packet sockets with a
// virtio_net_hdr (PACKET_VNET_HDR): big frames of up to 256 KB keep their segment
// size and their partial checksum, at the price of one copy and one system call.
//
// What lives here is the system calls, and the chunks of a pool that they read and
// write. What a header says is dataplane/vnet's, which frames come here instead of
// an AF_XDP socket dataplane/mixed's and dataplane/intake's.
//
//	open.go      making sockets, for both
//	sender.go    Sender: frames to a device
//	features.go  ... which of them it takes
//	receiver.go  Receiver: frames that arrive at a device
//	stock.go     ... the chunks it receives into
//
// Sending and receiving belong to the worker's goroutine and need no lock.
// Opening, closing and Stats are the control plane's. Sockets belong to the network
// namespace of the thread that opened them. All unsafe code is in files named
// *_unsafe.go. Kernel files are cited as of Linux 6.18.
package psock
