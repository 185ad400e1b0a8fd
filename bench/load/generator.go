package load

import "time"

// Generator is what sends a Config's frames. Its methods are safe from any
// goroutine. It ends at the Config's bounds, or by Stop, which its creator
// calls in any case.
type Generator interface {
	// Generated is the number of frames made so far. Not all of them arrive:
	// what finds a device's ring full is dropped by the kernel.
	Generated() (uint64, error)
	// Running reports whether the generator has not come to its bounds.
	Running() bool
	// CPU is the processor time that the generator's own thread took so far,
	// with all that the kernel did on its behalf: where it handed the frames to
	// a veth, the receiving end's work as well. It can still be read after Stop.
	CPU() (time.Duration, error)
	// Stop ends the generator, releases what it holds and says what went wrong
	// while it ran. Only the first call does anything.
	Stop() error
}
