package kube

import "time"

// pace leaves the processor to others while changes keep coming: after a set that took
// a time to apply the next one waits twice as long, with all that comes in between. A
// change after a pause is applied at once.
type pace struct{ free time.Time }

// wait is how long not to apply anything.
func (p *pace) wait(now time.Time) time.Duration { return max(p.free.Sub(now), 0) }

// ran notes how long it took.
func (p *pace) ran(start, end time.Time) { p.free = end.Add(2 * end.Sub(start)) }
