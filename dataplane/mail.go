package dataplane

import (
	"fmt"
	"slices"

	"culvert/dataplane/frame"
)

// do runs job on the worker's goroutine, between two bursts, and waits for it.
// Before the worker has started, and after it has ended, job runs on the caller.
func (w *worker) do(job func()) {
	w.mail.Lock()
	if !w.mail.running || w.mail.done {
		defer w.mail.Unlock()
		job()
		return
	}
	finished := make(chan struct{})
	w.mail.jobs = append(w.mail.jobs, func() { job(); close(finished) })
	w.mail.pending.Store(true)
	w.mail.Unlock()
	w.wake()
	<-finished
}

// wake ends the worker's sleep.
func (w *worker) wake() { w.poll.wake() }

// stop ends the worker after the burst in hand.
func (w *worker) stop() {
	w.mail.Lock()
	w.mail.done = true
	w.mail.pending.Store(true)
	w.mail.Unlock()
	w.wake()
}

// takeMail runs the jobs that wait and reports whether the worker shall end.
func (w *worker) takeMail() (end bool) {
	if !w.mail.pending.Load() {
		return false
	}
	w.mail.Lock()
	defer w.mail.Unlock()
	for _, job := range w.mail.jobs {
		job()
	}
	w.mail.jobs = nil
	w.injected = append(w.injected, w.mail.packets...)
	w.mail.packets = nil
	w.mail.pending.Store(false)
	return w.mail.done
}

// attach makes q one of the worker's queues and starts its device.
func (w *worker) attach(q *portQueue) (err error) {
	w.do(func() {
		q.owner = w.pool.NewOwner()
		q.limits = q.dev.Limits()
		first := minFill
		if q.port.spec.Kind == PortUplink || q.port.spec.Kind == PortIntake {
			first = w.fillMost(len(w.active) + 1)
		}
		if q.limits.TxOnly {
			first = 0
		}
		if err = q.dev.Start(q.owner, first); err != nil {
			return
		}
		w.poll.add(q.dev.FD())
		if d, two := q.dev.(secondFD); two {
			w.poll.add(d.BulkFD())
		}
		w.active = append(w.active, q)
		if !q.limits.TxOnly {
			w.rx = append(w.rx, q)
		}
		if w.ports[q.port.index] == nil {
			w.ports[q.port.index] = q
		}
		w.shareFill()
	})
	return err
}

// secondFD is a device with two descriptors to wait on: small and big frames
// arrive on different sockets.
type secondFD interface{ BulkFD() int }

// detach takes q from the worker, whether or not attach got to the end. The
// device may be closed afterwards; frames staged for it are freed.
func (w *worker) detach(q *portQueue) {
	w.do(func() {
		for i, other := range w.active {
			if other == q {
				w.active = append(w.active[:i], w.active[i+1:]...)
				w.poll.remove(q.dev.FD())
				if d, two := q.dev.(secondFD); two {
					w.poll.remove(d.BulkFD())
				}
				break
			}
		}
		same := func(other *portQueue) bool { return other == q }
		w.rx, w.late = slices.DeleteFunc(w.rx, same), slices.DeleteFunc(w.late, same)
		if w.ports[q.port.index] == q {
			w.ports[q.port.index] = nil
		}
		w.forgetFragments(q.port.index)
		q.publish()
		w.shareFill()
	})
}

// reclaim frees the frames that q's closed device held.
func (w *worker) reclaim(q *portQueue) {
	w.do(func() {
		if q.owner != frame.OwnerWorker && q.owner != 0 {
			w.pool.Reclaim(q.owner)
			q.owner = 0
		}
	})
}

// fillMost is the most chunks that each of so many queues may hold for receiving:
// half of the memory shared out, as far as a ring goes.
func (w *worker) fillMost(queues int) int {
	return max(minFill, min(SharedRings*w.eng.cfg.RingSize, w.pool.Chunks()/(2*queues)))
}

// SharedRings is how many times as large the rings of an intake are as those of one
// port: many ports share them.
const SharedRings = 4

// minFill is the number of chunks a pod's queue begins with, and always may hold:
// a few 64 KB frames and a burst of small ones.
const minFill = 96

// shareFill shares the memory anew after a queue came or went.
func (w *worker) shareFill() {
	queues := 0
	for _, q := range w.active {
		if !q.limits.TxOnly {
			queues++
		}
	}
	most := w.fillMost(max(queues, 1))
	for _, q := range w.active {
		q.dev.SetFill(most)
	}
}

// lost is an error if chunks are missing from the free list after every device
// has given its own back: a frame was lost, which is a bug.
func (w *worker) lost() error {
	if free, all := w.pool.FreeChunks(), w.pool.Chunks(); free != all {
		return fmt.Errorf("worker %d: %d of %d chunks were lost", w.id, all-free, all)
	}
	return nil
}

// checkLeaks reports, for tests, chunks that no one answers for while the
// worker holds no burst.
func (w *worker) checkLeaks() error {
	var held int
	w.do(func() { held = w.pool.Held(frame.OwnerWorker) - w.frags.chunks() })
	if held != 0 {
		return fmt.Errorf("worker %d: %d chunks are neither free nor with a device", w.id, held)
	}
	return nil
}
