package mixed

import "culvert/dataplane/frame"

// Send implements frame.Device. Small frames that follow each other are one batch
// of the socket's; a big one goes when the kernel has all that is in front of it.
// It stops at the first frame that finds no room: what is behind must not
// overtake it.
func (d *Device) Send(frames []frame.Frame) int {
	for at := 0; at < len(frames); {
		if d.goesBig(&frames[at]) {
			if !d.settle() || !d.sendBig(&frames[at]) {
				return d.stop(at, len(frames)-at)
			}
			at++
			continue
		}
		end := at + 1
		for end < len(frames) && !d.goesBig(&frames[end]) {
			end++
		}
		taken := d.small.Send(frames[at:end]) // it counts those that it leaves
		if at+taken < end {
			return d.stop(at+taken, len(frames)-end)
		}
		at = end
	}
	return len(frames)
}

// goesBig reports which way a frame goes: those to be cut, and chains that the
// socket does not take.
func (d *Device) goesBig(f *frame.Frame) bool {
	return f.SegSize != 0 || len(f.Rest) >= d.chains
}

// stop counts n frames for which there was no room, and returns how many were
// taken before.
func (d *Device) stop(taken, n int) int {
	if n > 0 {
		bump(&d.count.ringFull, uint64(n))
	}
	return taken
}

// maxSettles is how often settle makes the socket try again. Each try sends as
// much as the kernel takes: what is left after these waits for a receiver.
const maxSettles = 4

// settle makes the kernel take what the socket has still on its ring. It reports
// false if some of that is left.
func (d *Device) settle() bool {
	for range maxSettles {
		if !d.small.Sending() {
			return true
		}
		d.small.Recv(d.full)
	}
	return !d.small.Sending()
}

// sendBig sends one frame the big way and frees its chunks: the kernel has copied
// them, or will not take them. It reports false when there was no room; then the
// frame stays the caller's.
func (d *Device) sendBig(f *frame.Frame) bool {
	r := Refused
	if d.sendable(f) {
		r = d.big.Send(f)
	}
	switch r {
	case Sent:
	case Full:
		return false
	case Dropped:
		bump(&d.count.refused, 1)
	case Down, Gone:
		bump(&d.count.linkDown, 1)
	case Refused:
		bump(&d.count.invalid, 1)
	default:
		bump(&d.count.errors, 1)
		bump(&d.count.refused, 1)
	}
	d.pool.FreeFrame(f)
	return true
}

// sendable reports whether f is within what the big way said it takes.
func (d *Device) sendable(f *frame.Frame) bool {
	if f.SegSize != 0 {
		return d.limits.Takes(f)
	}
	return len(f.Rest) < d.limits.Chunks
}
