// Package mixed makes one frame.Device of two ways to send: an AF_XDP socket for
// small frames, many with one system call, and a way that knows virtio_net_hdr for
// big ones, each with its segment size and its checksum still partial.
//
// What lives here is the order of frames across the two ways, and who owns and
// counts a frame on the second. The ways themselves are dataplane/xsk,
// dataplane/psock and dataplane/tap; no system call is made here.
//
//	big.go     what a way for big frames must do, and what becomes of a frame
//	alone.go   the big way alone, for frames of every size
//	split.go   a way of two, for frames in tunnels and others
//	device.go  Device: opening, receiving, counting
//	send.go    ... sending, in order
package mixed
