package flow

// Wire is the owner of flows whose first packet came by an uplink. It has no
// limit: who floods is then not on this node, and would only shut out others.
// Its embryonic flows are the first to go when the table is full.
const Wire = 1<<16 - 1

// leastOwnerLimit is what every owner may have in a table however small.
const leastOwnerLimit = 64

// OwnerLimit is the number of half-open flows that one owner may have by default
// in a table for capacity connections: an eighth, at least 64. Half-open are
// TCP and SCTP flows before the end of the handshake, and flows of other
// protocols that nobody has answered.
func OwnerLimit(capacity int) int { return max(capacity/8, leastOwnerLimit) }

// SetOwnerLimit sets the number of half-open flows that one owner may have. It
// holds for flows to come.
func (t *Table) SetOwnerLimit(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ownerLimit = int32(min(n, MaxCapacity))
}

// Refusal says why Insert made no flow.
type Refusal uint8

const (
	// Accepted is no refusal.
	Accepted Refusal = iota
	// Full: nothing could be evicted or used again.
	Full
	// Clash: another flow has the reply's key.
	Clash
	// Limit: the owner has as many half-open flows as one may have.
	Limit
)

// mayOwn reports whether the owner may have one more half-open flow.
func (t *Table) mayOwn(owner uint16) bool {
	return owner == Wire || t.halfOpen[owner] < t.ownerLimit
}

// charge counts entry i, whose control word is c, to its owner, or no more.
func (t *Table) charge(i uint32, c control, n int32) {
	if c&ctlHalf != 0 {
		t.halfOpen[t.entries[i].owner()] += n
	}
}
