// Package capture is what a worker keeps of frames for somebody who wants to see
// them: which ones (Spec, Filter), and a ring that carries copies of them to one
// reader (Ring).
//
// A Tap is one capture's part in one worker. The worker that has it writes, one other
// goroutine reads, and neither waits for the other: a frame that finds no room is
// counted as missed. Nothing here knows a worker, a device, a goroutine or a clock,
// and nothing that a worker calls allocates.
package capture
