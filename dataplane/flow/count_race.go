//go:build race

package flow

import "sync/atomic"

// What count.go does, in the way that the race detector understands.

func add(p *uint64, n uint64)   { atomic.AddUint64(p, n) }
func store(p *uint64, n uint64) { atomic.StoreUint64(p, n) }
func load(p *uint64) uint64     { return atomic.LoadUint64(p) }

func store32(p *uint32, n uint32) { atomic.StoreUint32(p, n) }
func load32(p *uint32) uint32     { return atomic.LoadUint32(p) }
