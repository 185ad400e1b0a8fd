package xskgen

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"culvert/bench/load"

	"github.com/asavie/xdp"
	"golang.org/x/sys/unix"
)

// The kernel sends 32 frames in a system call, if it is not told otherwise
// (TX_BATCH_SIZE of net/xdp/xsk.c). There are as many more for those that were
// sent and are not yet freed.
const (
	burst     = 32
	frames    = 4 * burst
	frameSize = 2048
)

// port is a device's socket.
type port struct {
	socket *xdp.Socket
	inode  uint64     // of the socket
	free   []xdp.Desc // frames to write; the socket's, until it transmits
	filled int        // of free, those that are written
}

// open makes the socket of a device of the calling thread's network namespace.
// The queue of one that was just closed becomes free a moment later
// (xp_release_deferred of net/xdp/xsk_buff_pool.c).
func open(device int) (*port, error) {
	for end := time.Now().Add(time.Second); ; doze(time.Millisecond) {
		p, err := tryOpen(device)
		if err == nil {
			return p, nil
		}
		// The library does not wrap errors.
		if !strings.Contains(err.Error(), unix.EBUSY.Error()) || time.Now().After(end) {
			return nil, fmt.Errorf("AF_XDP socket on device %d: %w", device, err)
		}
	}
}

func tryOpen(device int) (*port, error) {
	before, err := mapped()
	if err != nil {
		return nil, err
	}
	s, err := xdp.NewSocket(device, 0, &xdp.SocketOptions{
		NumFrames: frames, FrameSize: frameSize,
		// It receives nothing, but the kernel wants a fill ring.
		FillRingNumDescs: 1, CompletionRingNumDescs: frames, TxRingNumDescs: frames,
	})
	if err != nil {
		return nil, errors.Join(err, unmapNew(before))
	}
	var stat unix.Stat_t
	if err := unix.Fstat(s.FD(), &stat); err != nil {
		return nil, errors.Join(err, s.Close(), unmapNew(before))
	}
	return &port{socket: s, inode: stat.Ino}, nil
}

// room says whether another frame can be put, after it has reaped those that
// were sent if need be.
func (p *port) room() bool {
	if p.filled < len(p.free) {
		return true
	}
	if p.filled > 0 {
		return false // GetDescs would name the same frames again
	}
	p.socket.Complete(p.socket.NumCompleted())
	p.free = p.socket.GetDescs(burst)
	return len(p.free) > 0
}

// put writes a frame. There is room for it.
func (p *port) put(plan *load.Plan, flow uint32, n int) {
	d := &p.free[p.filled]
	d.Len = uint32(n)
	plan.Put(p.socket.GetFrame(*d), flow, n) // the rest is zero: nobody else writes there
	p.filled++
}

// kick sends what was put and what is left of earlier frames. It returns how
// many were new, and whether none is left.
func (p *port) kick() (sent int, empty bool) {
	sent = p.socket.Transmit(p.free[:p.filled]) // all of them: its ring holds every frame there is
	p.free, p.filled = nil, 0
	return sent, p.socket.NumFreeTxSlots() == frames
}

// close frees the socket.
func (p *port) close() error {
	return errors.Join(p.socket.Close(), unmap(func(inode uint64) bool { return inode == p.inode }))
}
