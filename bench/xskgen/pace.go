package xskgen

import "time"

// pace says how many frames are due.
type pace struct {
	rate  float64 // a second
	sent  float64 // frames by schedule, sent or given up
	least float64 // frames that are worth waking up for
	most  float64 // frames late that are made up for
}

// newPace wakes up some ten thousand times a second at most, and makes up for a
// delay of a millisecond.
func newPace(rate float64) pace {
	return pace{rate: rate, least: min(max(rate/10_000, 1), burst), most: max(rate/1000, 2*burst)}
}

// due is how many frames are to be sent at a time after the start, or how long
// to sleep if that is 0. Every result is sent.
func (p *pace) due(now time.Duration) (n int, sleep time.Duration) {
	late := now.Seconds()*p.rate - p.sent
	if late > p.most {
		p.sent += late - p.most
		late = p.most
	}
	if late < p.least {
		return 0, time.Duration((p.least - late) / p.rate * 1e9)
	}
	n = min(int(late), burst)
	p.sent += float64(n)
	return n, 0
}
