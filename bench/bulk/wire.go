package bulk

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// maxFrame is the longest frame of the underlay, without frame check sequence.
const maxFrame = 1514

// cut reports whether only MTU-sized frames may cross the wire.
func (w Wire) cut() bool { return w == MTU || w == MTUGRO }

// traffic are the counters of the two uplinks' sending sides.
type traffic [2]struct{ packets, bytes uint64 }

func (b *bed) traffic() (t traffic, err error) {
	for i, n := range b.nodes {
		link, err := n.space.Link(n.uplink)
		if err != nil {
			return t, err
		}
		t[i].packets, t[i].bytes = link.Statistics.TxPackets, link.Statistics.TxBytes
	}
	return t, nil
}

// means are the mean lengths of the frames that crossed since an earlier
// reading, in either direction.
func (t traffic) means(before traffic) (means [2]float64) {
	for i := range t {
		if packets := t[i].packets - before[i].packets; packets > 0 {
			means[i] = float64(t[i].bytes-before[i].bytes) / float64(packets)
		}
	}
	return means
}

// watch counts the frames that are longer than maxFrame on both uplinks, by
// packet sockets. Where GRO merges what was received, as culvertd makes it do, only
// sent frames count.
//
// Frames that Culvert sends or takes by AF_XDP pass no packet socket: they are
// seen at the other end, if the kernel is there, and in the mean of the
// interface counters.
type watch []int

func (b *bed) startWatch() (w watch, err error) {
	for _, n := range b.nodes {
		link, err := n.space.Link(n.uplink)
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
		err = n.space.Do(func() error {
			fd, err := longFrames(link.Index, b.wire == MTUGRO || n.agent != nil)
			if err == nil {
				w = append(w, fd)
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("packet socket on %s: %w", n.uplink, err), w.close())
		}
	}
	return w, nil
}

// sent and long are programs of classic BPF; what goes through both is kept.
var (
	sent = []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: skfPktType},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PACKET_OUTGOING, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	long = []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN},
		{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: maxFrame, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
)

// skfPktType is SKF_AD_OFF + SKF_AD_PKTTYPE (include/uapi/linux/filter.h).
const skfPktType = 1<<32 - 0x1000 + 4

// longFrames opens a packet socket for the long frames of a device. It has no
// protocol before it has its filter, so that nothing else gets in.
func longFrames(ifindex int, sentOnly bool) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	filter := long
	if sentOnly {
		filter = slices.Concat(sent, long)
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err == nil {
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network byte order
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex})
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// count is the number of long frames so far, of both ends: one that passes the
// sockets of both counts twice. It may be called once.
func (w watch) count() (n uint64, err error) {
	for _, fd := range w {
		stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			return n, fmt.Errorf("counters of a packet socket: %w", err)
		}
		n += uint64(stats.Packets) // those that found the socket's buffer full included
	}
	return n, nil
}

func (w watch) close() error {
	var errs []error
	for _, fd := range w {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

// checkFrames says whether something crossed that should not have.
func (w Wire) checkFrames(m *Measurement) error {
	if !w.cut() {
		return nil
	}
	if m.LongFrames > 0 {
		return fmt.Errorf("%d frames of more than %d bytes crossed in the warm-up", m.LongFrames, maxFrame)
	}
	for _, mean := range m.FrameLen {
		if mean > maxFrame {
			return fmt.Errorf("frames of %.0f bytes on average crossed, more than %d", mean, maxFrame)
		}
	}
	return nil
}
