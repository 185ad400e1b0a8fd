package psock

import (
	"errors"
	"fmt"

	"culvert/dataplane/frame"
	"culvert/dataplane/mixed"
	"culvert/dataplane/vnet"

	"golang.org/x/sys/unix"
)

// sendBuffer is the socket's limit of bytes on their way, in bytes. On a veth it is
// used up only while the receiver's CPU is busy elsewhere.
const sendBuffer = 8 << 20

// maxChunks is the largest number of chunks of one frame: a 256 KB frame of TCP
// segments that were merged, each in a chunk of its own, has 181.
const maxChunks = 192

// Sender sends frames to one device, one by one: a mixed.Big. It must not be
// copied once it is open.
type Sender struct {
	fd     int
	pool   *frame.Pool
	name   string
	limits frame.Limits
	// What sendmsg reads: the header, and the header's and the chunks' places.
	header [vnet.Len]byte
	iov    [1 + maxChunks]unix.Iovec
	msg    unix.Msghdr
}

// OpenSender opens a way to send big frames from pool's chunks to a device of the
// calling thread's network namespace. It receives nothing.
func OpenSender(name string, ifindex int, pool *frame.Pool) (*Sender, error) {
	limits, err := limitsOf(ifindex)
	if err != nil {
		return nil, fmt.Errorf("psock: sending to %s: %w", name, err)
	}
	// Without the bypass each frame would go through the device's queueing
	// discipline, and what an AF_XDP socket sends beside us would overtake it:
	// that never does (net/xdp/xsk.c, __xsk_generic_xmit).
	fd, err := openSocket(setting{"bypassing the queueing discipline", unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1})
	if err != nil {
		return nil, fmt.Errorf("psock: sending to %s: %w", name, err)
	}
	raiseBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
	if err := bind(fd, ifindex, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("psock: sending to %s: %w", name, err), unix.Close(fd))
	}
	s := &Sender{fd: fd, pool: pool, name: name, limits: limits}
	s.iov[0].Base, s.iov[0].Len = &s.header[0], vnet.Len
	s.msg.Iov = &s.iov[0]
	return s, nil
}

// Limits implements mixed.Big. Frames without SegSize must be within the device's
// MTU. They are those that the device had when the Sender was opened.
func (s *Sender) Limits() frame.Limits { return s.limits }

// Send implements mixed.Big. On a veth the receiver's stack has mostly had the frame
// when it returns (net/core/dev.c, __dev_direct_xmit, whose local_bh_enable runs
// the receive softirq).
func (s *Sender) Send(f *frame.Frame) mixed.Result {
	if len(f.Rest) >= maxChunks || f.Len < vnet.EtherLen {
		return mixed.Refused
	}
	vnet.Put(s.header[:], f)
	s.msg.Iovlen = uint64(1 + vnet.Gather(s.iov[1:], s.pool, f))
	for {
		if errno := sendmsg(s.fd, &s.msg); errno != unix.EINTR {
			return result(errno)
		}
	}
}

// result says what became of a frame by the errno of its sendmsg
// (net/packet/af_packet.c, packet_snd).
func result(errno unix.Errno) mixed.Result {
	switch errno {
	case 0:
		return mixed.Sent
	case unix.EAGAIN: // the send buffer is used up
		return mixed.Full
	case unix.ENOBUFS, unix.ENOMEM: // NET_XMIT_DROP: no carrier, a full queue; or no memory for a copy
		return mixed.Dropped
	case unix.ENETDOWN:
		return mixed.Down
	case unix.ENXIO, unix.ENODEV:
		return mixed.Gone
	case unix.EINVAL, unix.EMSGSIZE, unix.EFAULT: // virtio_net_hdr_to_skb; longer than the MTU
		return mixed.Refused
	}
	return mixed.Failed
}

// Close implements mixed.Big.
func (s *Sender) Close() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("psock: closing the sender to %s: %w", s.name, err)
	}
	return nil
}

var _ mixed.Big = (*Sender)(nil)
