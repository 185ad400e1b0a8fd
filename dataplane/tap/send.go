package tap

import (
	"culvert/dataplane/frame"
	"culvert/dataplane/mixed"
	"culvert/dataplane/vnet"

	"golang.org/x/sys/unix"
)

// Send implements frame.Device: one writev a frame, which the pod's stack has
// received when it returns (drivers/net/tun.c, tun_get_user: netif_receive_skb).
// Frames that it takes and cannot deliver are freed and counted.
func (q *Queue) Send(frames []frame.Frame) int {
	if q.gone.Load() {
		return q.giveUp(frames)
	}
	for i := range frames {
		f := &frames[i]
		r := mixed.Refused
		if sendable(&q.limits, f) {
			r = q.tx.write(q.pool, f)
		}
		switch r {
		case mixed.Sent:
		case mixed.Full:
			bump(&q.count.txRingFull, uint64(len(frames)-i))
			return i
		case mixed.Refused:
			bump(&q.count.txInvalid, 1)
		case mixed.Gone:
			q.lose()
			fallthrough
		case mixed.Down:
			q.giveUp(frames[i:])
			return len(frames)
		case mixed.Failed:
			bump(&q.count.txErrors, 1)
			bump(&q.count.txRefused, 1)
		}
		q.pool.FreeFrame(f)
	}
	return len(frames)
}

// giveUp takes the frames and frees them.
func (q *Queue) giveUp(frames []frame.Frame) int {
	for i := range frames {
		q.pool.FreeFrame(&frames[i])
	}
	bump(&q.count.txLinkDown, uint64(len(frames)))
	return len(frames)
}

// sendable reports whether f is within the limits.
func sendable(l *frame.Limits, f *frame.Frame) bool {
	if f.Len < vnet.EtherLen {
		return false
	}
	if f.SegSize != 0 {
		return l.Takes(f)
	}
	return f.Total <= maxBytes && len(f.Rest) < l.Chunks
}

// writer writes frames to a TAP. It holds what each system call needs, so that
// nothing is allocated.
type writer struct {
	fd     int
	header []byte // of hdr, as long as the device's
	hdr    [vnet.TunnelLen]byte
	iov    [1 + frame.MaxChunks]unix.Iovec
}

// init points w at a device. header is a part of w.hdr: w does not move after.
func (w *writer) init(fd int, header []byte) {
	w.fd, w.header = fd, header
	w.iov[0].Base, w.iov[0].Len = &header[0], uint64(len(header))
}

// write sends f, which has at most frame.MaxChunks chunks and stays the caller's.
func (w *writer) write(pool *frame.Pool, f *frame.Frame) mixed.Result {
	vnet.Put(w.header, f)
	n := 1 + vnet.Gather(w.iov[1:], pool, f)
	for {
		switch writev(w.fd, w.iov[:n]) {
		case 0:
			return mixed.Sent
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			return mixed.Full
		case unix.EIO: // the device is not IFF_UP
			return mixed.Down
		case unix.EBADFD, unix.ENXIO, unix.ENODEV, unix.EBADF:
			return mixed.Gone
		case unix.EINVAL, unix.EMSGSIZE, unix.EFAULT: // virtio_net_hdr_to_skb, sock_alloc_send_pskb
			return mixed.Refused
		default:
			return mixed.Failed
		}
	}
}
