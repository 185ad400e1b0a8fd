//go:build !race

package flow

// A counter has in effect one writer and any number of readers. On all 64-bit
// machines an aligned word is read and written as a whole (Go memory model,
// "Implementation Restrictions"); sync/atomic has no weaker store than a
// sequentially consistent one, which locks the bus on amd64.

func add(p *uint64, n uint64)   { *p += n }
func store(p *uint64, n uint64) { *p = n }
func load(p *uint64) uint64     { return *p }

func store32(p *uint32, n uint32) { *p = n }
func load32(p *uint32) uint32     { return *p }
