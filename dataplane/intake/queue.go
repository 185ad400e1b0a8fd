package intake

import (
	"errors"
	"sync"

	"culvert/dataplane/frame"
	"culvert/dataplane/psock"
	"culvert/dataplane/xsk"
)

// Queue is one worker's end of an intake: a frame.Device that only receives. Its
// frames are tagged: frame.ReadTag says by which port one came. Those of one flow
// come in the order in which they were sent.
//
// A worker waits on two descriptors: FD for small frames and BulkFD for big ones.
type Queue struct {
	small   *xsk.Socket
	big     *psock.Receiver
	counter counter
	pool    *frame.Pool
	owner   frame.Owner

	// See order.go.
	clear  uint32
	limit  uint32
	looks  uint32
	budget int
	smalls fifo
	bigs   fifo

	smallShare share

	// The control plane's.
	mu     sync.Mutex // closing against reading statistics
	closed bool
	lost   uint64 // by the programs, as it was read last
}

// Start implements frame.Device. Big frames need some chunks beyond fill: for
// psock's few frames of the largest size.
func (q *Queue) Start(owner frame.Owner, fill int) error {
	q.owner = owner
	q.smallShare.resize(fill)
	if err := q.small.Start(owner, fill); err != nil {
		return err
	}
	q.big.Start(owner)
	return nil
}

// SetFill implements frame.Device: for small frames.
func (q *Queue) SetFill(most int) {
	q.small.SetFill(most)
	q.smallShare.resize(most)
}

// Send implements frame.Device. Nothing is sent by an intake.
func (q *Queue) Send([]frame.Frame) int { return 0 }

// Sending implements frame.Device: frames are held back until their turn comes, and
// no descriptor tells of it. Who sleeps leaves them waiting.
func (q *Queue) Sending() bool { return !q.smalls.empty() || !q.bigs.empty() }

// FD is ready when small frames wait.
func (q *Queue) FD() int { return q.small.FD() }

// BulkFD is ready when big frames wait.
func (q *Queue) BulkFD() int { return q.big.FD() }

// Limits implements frame.Device: no frame can be sent.
func (q *Queue) Limits() frame.Limits { return frame.Limits{Chunks: 1} }

// Stats implements frame.Device: what was lost of both kinds of frames together, by
// the sockets and by the programs in front of them.
func (q *Queue) Stats(s *frame.DeviceStats) {
	q.small.Stats(s)
	q.big.Stats(s)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.readLost()
	s.RxFailed += q.lost
}

// readLost is called with q.mu held.
func (q *Queue) readLost() {
	if !q.closed && q.counter.value != nil {
		q.lost = q.counter.lost()
	}
}

// Close closes both sockets.
func (q *Queue) Close() error {
	var errs []error
	if q.small != nil {
		errs = append(errs, q.small.Close())
	}
	if q.big != nil {
		errs = append(errs, q.big.Close())
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.readLost()
	q.closed = true
	return errors.Join(append(errs, q.counter.unmap())...)
}

var _ frame.Device = (*Queue)(nil)
