package flow

// Who owns a flow while it is half-open: the pod that sent the first packet, by
// its port's index, or one of these. Embryonic flows from the wire are the first to
// go when the table is full.
const (
	// Wire owns flows whose first packet came by an uplink, without a limit: who
	// sent it is not on this node, and would only shut out others.
	Wire = 1<<16 - 1
	// Host owns flows whose first packet the node's own stack sent, without a limit.
	Host = Wire - 1

	towards = 1 << 15
)

// Towards owns flows from the wire that are to be limited by where they go: who
// floods a pod with connections then shuts out others from that pod alone. port
// is the pod's, below 32766.
func Towards(port uint16) uint16 { return towards | port }

func fromWire(owner uint16) bool { return owner >= towards && owner != Host }

// leastOwnerLimit is what every owner may have in a table however small.
const leastOwnerLimit = 64

// OwnerLimit is the number of half-open flows that one owner may have by default
// in a table for capacity connections: an eighth, at least 64. Half-open are
// TCP and SCTP flows before the end of the handshake, and flows of other
// protocols that nobody has answered. Those that ended so, refused or never
// answered, count for a while as well: a flood whose every packet is refused at once
// has few of them at a time.
func OwnerLimit(capacity int) int { return max(capacity/8, leastOwnerLimit) }

// forgivenIn is the number of seconds in which as many failed flows are forgiven as
// an owner may have.
const forgivenIn = 4

// account is what an owner has.
type account struct {
	halfOpen int32
	failed   int32  // flows that ended half-open, less those forgiven
	since    uint32 // the second up to which some were
}

// fail counts one more failed flow.
func (a *account) fail(now uint32) {
	if a.failed == 0 {
		a.since = now
	}
	a.failed++
}

// forgive forgives what the time since the last call is worth.
func (a *account) forgive(now uint32, limit int32) {
	if a.failed > 0 {
		a.failed = int32(max(0, int64(a.failed)-int64(now-a.since)*int64(max(limit/forgivenIn, 1))))
		a.since = now
	}
}

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
	a := &t.accounts[owner]
	a.forgive(t.now, t.ownerLimit)
	return owner >= Host || a.halfOpen+a.failed < t.ownerLimit
}

// charge counts entry i, whose control word is c, to its owner, or no more.
func (t *Table) charge(i uint32, c control, n int32) {
	if c&ctlHalf != 0 {
		t.accounts[t.entries[i].owner()].halfOpen += n
	}
}

// blame counts entry i, which leaves the table, against its owner if it failed.
func (t *Table) blame(i uint32, c control, why Change) {
	if c&ctlHalf != 0 && (why == Expired || why == Evicted) {
		a := &t.accounts[t.entries[i].owner()]
		a.forgive(t.now, t.ownerLimit)
		a.fail(t.now)
	}
}
