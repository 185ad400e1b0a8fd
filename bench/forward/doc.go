// Package forward measures how fast a device under test forwards packets between
// its pods and the wire: a generator in the kernel loads it, a sink counts what it
// delivers, and sampled frames show that it did the work.
//
// Measure is one measurement of an instance that runs (package peer); who takes
// turns, and how often, is package run's affair. Everything happens in network
// namespaces of its own; no packet leaves them.
package forward
