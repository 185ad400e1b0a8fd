package flow

import "culvert/internal/packet"

// restoredFor is how long a TCP flow of before a restart waits for its next packet, in
// seconds: five minutes, as a client that tries again does.
const restoredFor = 300

// Restore adds a flow that another table had, so that what its keys and its owner say is
// known: translated addresses, and that the node's own stack began it. Of its state
// nothing is: a TCP flow is picked up in the middle, established. It reports false if there
// is no room, or another flow has one of the keys. To be called before workers run.
func (t *Table) Restore(orig, reply *packet.Key, owner uint16, now uint32) bool {
	e, _, r := t.Insert(orig, reply, owner, now)
	if r != Accepted {
		return false
	}
	for orig.Proto == packet.ProtoTCP {
		c := control(e.ctl.Load())
		if e.change(c, (c|ctlReplied|ctlAssured|ctlLiberal).with(Established, now+restoredFor)) {
			break
		}
	}
	return true
}
