package mixed

import "culvert/dataplane/frame"

// Result is what became of a frame that was to be sent.
type Result uint8

// The results of sending. Only after Full is the frame still to be sent.
const (
	Sent    Result = iota // the kernel has a copy
	Full                  // no room or memory now: not taken
	Down                  // the device is down: lost
	Gone                  // the device was removed: lost, as everything after it
	Refused               // the kernel does not take such a frame: lost, a defect of ours
	Failed                // an error that nobody expects: lost
	Dropped               // the kernel took the frame, and the device dropped it
)

// Big is a way to send big frames out of a device, one by one. One goroutine uses
// it, but for Limits and Close.
type Big interface {
	// Send hands f to the kernel whole, synchronously: when it returns, the
	// kernel has a copy of the frame, behind all that it was given before. The
	// chunks stay the caller's whatever the result.
	Send(f *frame.Frame) Result
	// Limits are those of frames with SegSize. Frames without it are accepted
	// as chains of so many chunks as well.
	Limits() frame.Limits
	Close() error
}

// Small is the socket for everything else: *xsk.Socket.
type Small interface {
	frame.Device
	// ZeroCopy reports whether the device reads chunks by itself, later.
	ZeroCopy() bool
}
