package kube

import (
	"math/rand/v2"
	"time"
)

// pauses are the pauses between attempts: doubled each time, and each somewhere
// between half of that and all of it, so that thousands of nodes that fail together do not try together.
type pauses struct {
	least, most time.Duration
	failures    int
}

// next is the pause after one more failure.
func (b *pauses) next() time.Duration {
	d := b.most
	if b.failures < 20 {
		d = min(d, b.least<<b.failures)
		b.failures++
	}
	return halfTo(d)
}

// reset is for after a success.
func (b *pauses) reset() { b.failures = 0 }

// halfTo is between half of d and d.
func halfTo(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1)
}
