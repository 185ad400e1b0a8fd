package frag

import (
	"fmt"

	"culvert/internal/drop"
	"culvert/internal/packet"
)

// How long a datagram is known, in seconds from its first fragment to arrive:
// IP_FRAG_TIME of include/net/ip.h and IPV6_FRAG_TIMEOUT of include/net/ipv6.h.
const (
	Timeout4 = 30
	Timeout6 = 60
)

// reuseAfter is for how many seconds, at least, nothing may have come of a datagram for
// another first fragment to begin a new one with the same identification. Of the
// 16 bits of IPv4 a fast sender is through in less than the timeout (RFC 4963); Linux
// starts anew after 64 other datagrams of the source (ip_frag_too_far).
const reuseAfter = 2

// Config sizes a Tracker.
type Config struct {
	Datagrams int // known at once, 2 to 65535
	Held      int // chunks of frames that wait for their first fragment, in all, 2 to 65534
	HeldEach  int // ... frames of one datagram
	Chunks    int // most chunks of a frame that waits
	Ports     int // fragments arrive by ports 0 to Ports-1
}

// Fragment is one that has arrived.
type Fragment struct {
	// Key is Parse's: with ports if Offset is 0.
	Key packet.Key
	// Origin keeps apart datagrams of equal keys that came different ways: nobody
	// may spoil another's. All of one origin come by one Port.
	Origin uint64
	packet.Piece
	// Port is the one that the fragment came by.
	Port uint16
	// Chunks is the number of the frame's chunks, from 1.
	Chunks uint16
	// Tracked says of a first fragment that there is a flow for its Key.
	Tracked bool
}

// Handle is the caller's name for a frame that it keeps: 1 to Config.Held+1.
// 0 is none.
type Handle uint16

// Verdict is what becomes of a fragment.
type Verdict uint8

// Verdicts.
const (
	Pass Verdict = iota
	Hold
	Drop
)

// Result of Add.
type Result struct {
	// Flow is the first fragment's key of a later one that passes, and nil
	// otherwise. It is valid until the next call of Add.
	Flow *packet.Key
	// Handle is where the caller keeps a fragment that it holds. Of a first
	// fragment that passes it is the first of those that have waited for it, in
	// the order of arrival: Release gives the next.
	Handle  Handle
	Verdict Verdict
	Reason  drop.Reason // of Drop
	Tracked bool        // with Flow: Fragment.Tracked of the first one
}

// state of a datagram.
type state uint8

const (
	free      state = iota
	waiting         // for its first fragment
	following       // the first one's flow
	condemned
)

// datagram is one of which not all fragments have come. All lengths are in bytes.
type datagram struct {
	id     packet.Key // with the identification in place of the ports
	flow   packet.Key // of the first fragment
	origin uint64
	serial uint64 // counts datagrams
	born   uint32 // seconds
	last   uint32 // ... when a fragment came
	extent
	state   state
	tracked bool
	reason  drop.Reason // of the condemned
	port    uint16
	holds   uint16 // frames that wait, a chain of handles
	head    Handle
	tail    Handle
	next    uint16 // in the bucket, or on the free list
	links   [numLists]link
}

// Tracker knows the datagrams of which not all fragments have come. It must not
// be copied.
type Tracker struct {
	cfg       Config
	datagrams []datagram // from 1
	covers    []cover    // by datagram
	buckets   []uint16
	shift     uint8
	free      uint16
	serial    uint64
	ages      [2]list // datagrams by age: IPv4, IPv6
	waits     list    // those that wait for their first fragment
	ports     []perPort
	holds     []hold // by handle
	freeHold  Handle
	dropped   chain
	stats     Stats
}

// perPort is what one port has of the tracker.
type perPort struct {
	all, waits list
	held       int // chunks
}

// Stats of a Tracker.
type Stats struct {
	Datagrams int    // known now
	Held      int    // frames that wait now for the first fragment of their datagram
	Chunks    int    // ... of which these are chunks
	Evicted   uint64 // datagrams forgotten to make room for others
	Expired   uint64 // ... of which not all fragments came in time
}

// New makes an empty tracker.
func New(cfg Config) (*Tracker, error) {
	if cfg.Datagrams < 2 || cfg.Datagrams > 65535 || cfg.Held < 2 || cfg.Held > 65534 || cfg.HeldEach < 1 || cfg.Chunks < 1 || cfg.Ports < 1 || cfg.Ports > 65536 {
		return nil, fmt.Errorf("fragment tracker: sizes out of range: %+v", cfg)
	}
	t := &Tracker{
		cfg:       cfg,
		datagrams: make([]datagram, cfg.Datagrams+1),
		covers:    make([]cover, cfg.Datagrams+1),
		ports:     make([]perPort, cfg.Ports),
		holds:     make([]hold, cfg.Held+2),
	}
	size := 1
	for t.shift = 64; size < 2*cfg.Datagrams; t.shift-- {
		size *= 2
	}
	t.buckets = make([]uint16, size)
	for i := cfg.Datagrams; i > 0; i-- {
		t.datagrams[i].next, t.free = t.free, uint16(i)
	}
	for h := Handle(cfg.Held + 1); h > 0; h-- {
		t.holds[h].next, t.freeHold = t.freeHold, h
	}
	return t, nil
}

// Stats returns the counters.
func (t *Tracker) Stats() Stats { return t.stats }

// Add says what becomes of a fragment. f is no atomic one, which is all of its datagram
// (RFC 6946). now is in seconds; it never goes back.
//
// Afterwards the caller asks Dropped which frames it no longer has to keep. It does not allocate.
func (t *Tracker) Add(f *Fragment, now uint32) Result {
	id := identity(f)
	b := t.bucket(&id, f.Origin)
	i := t.find(b, &id, f.Origin)
	if i == 0 {
		i = t.begin(b, &id, f, now)
	}
	d := &t.datagrams[i]
	if f.Offset == 0 && d.state != waiting && now-d.last >= reuseAfter {
		t.renew(i, now)
	}
	d.last = now
	if d.state == condemned {
		return Result{Verdict: Drop, Reason: d.reason}
	}
	if r := d.extent.add(&t.covers[i], &f.Piece); r == drop.FragmentDuplicate {
		return Result{Verdict: Drop, Reason: r}
	} else if r != drop.None {
		t.condemn(i, r)
		return Result{Verdict: Drop, Reason: r}
	}
	var res Result
	switch {
	case f.Offset == 0:
		res.Handle = t.follow(i, f)
	case d.state == following:
		res.Flow, res.Tracked = &d.flow, d.tracked
	default:
		return t.hold(i, f)
	}
	if d.whole() {
		t.remove(i)
	}
	return res
}

// identity is what the fragments of a datagram have in common. In IPv6 they may
// differ in the protocol: only the first one's counts (RFC 8200 4.5).
func identity(f *Fragment) packet.Key {
	id := f.Key
	id.SrcPort, id.DstPort = uint16(f.ID>>16), uint16(f.ID)
	if id.Family == 6 {
		id.Proto = 0
	}
	return id
}

// bucket is where datagrams of that identity are. Key's hash cannot be foreseen by
// senders.
func (t *Tracker) bucket(id *packet.Key, origin uint64) *uint16 {
	const golden = 0x9e3779b97f4a7c15
	return &t.buckets[(id.Hash()^origin*golden)*golden>>t.shift&uint64(len(t.buckets)-1)]
}

func (t *Tracker) find(b *uint16, id *packet.Key, origin uint64) uint16 {
	for i := *b; i != 0; i = t.datagrams[i].next {
		if d := &t.datagrams[i]; d.origin == origin && d.id == *id {
			return i
		}
	}
	return 0
}

// begin makes a datagram known. A port has at most half of the memory: at its
// limit it loses its own oldest datagram.
func (t *Tracker) begin(b *uint16, id *packet.Key, f *Fragment, now uint32) uint16 {
	switch p := &t.ports[f.Port]; {
	case p.all.n >= t.cfg.Datagrams/2:
		t.evict(p.all.first)
	case t.free == 0:
		t.evict(t.oldest())
	}
	i := t.free
	d := &t.datagrams[i]
	t.free = d.next
	t.serial++
	d.id, d.origin, d.serial, d.port = *id, f.Origin, t.serial, f.Port
	d.born, d.last, d.state = now, now, waiting
	d.extent.reset(&t.covers[i])
	d.holds, d.head, d.tail = 0, 0, 0
	d.next, *b = *b, i
	t.enlist(i)
	t.stats.Datagrams++
	return i
}

// oldest is the datagram that has been known longest; there is one.
func (t *Tracker) oldest() uint16 {
	v4, v6 := t.ages[0].first, t.ages[1].first
	if v4 == 0 || v6 != 0 && t.datagrams[v6].serial < t.datagrams[v4].serial {
		return v6
	}
	return v4
}

// renew makes a datagram that does not wait a new one with the same identity.
func (t *Tracker) renew(i uint16, now uint32) {
	d := &t.datagrams[i]
	t.delist(i)
	t.serial++
	d.serial, d.born, d.state = t.serial, now, waiting
	d.extent.reset(&t.covers[i])
	t.enlist(i)
}

// follow notes the first fragment, and returns the frames that waited for it.
func (t *Tracker) follow(i uint16, f *Fragment) Handle {
	d := &t.datagrams[i]
	t.unwait(i)
	d.state, d.flow, d.tracked = following, f.Key, f.Tracked
	first := d.head
	d.holds, d.head, d.tail = 0, 0, 0
	return first
}

// condemn drops what waits of a datagram, and has dropped what comes.
func (t *Tracker) condemn(i uint16, r drop.Reason) {
	d := &t.datagrams[i]
	t.unwait(i)
	t.abandon(i, r)
	d.state, d.reason = condemned, r
}

// evict forgets a datagram to make room.
func (t *Tracker) evict(i uint16) {
	t.stats.Evicted++
	t.abandon(i, drop.FragmentTableFull)
	t.remove(i)
}

// remove forgets a datagram of which nothing waits.
func (t *Tracker) remove(i uint16) {
	d := &t.datagrams[i]
	t.delist(i)
	at := t.bucket(&d.id, d.origin)
	for *at != i {
		at = &t.datagrams[*at].next
	}
	*at = d.next
	d.state, d.next, t.free = free, t.free, i
	t.stats.Datagrams--
}

// Expire forgets the datagrams whose time is over, at most n of them. now is in
// seconds. The caller asks Dropped afterwards.
func (t *Tracker) Expire(now uint32, n int) {
	for family, timeout := range [...]uint32{Timeout4, Timeout6} {
		for ; n > 0; n-- {
			i := t.ages[family].first
			if i == 0 || now-t.datagrams[i].born < timeout {
				break
			}
			t.stats.Expired++
			t.abandon(i, drop.FragmentOrphan)
			t.remove(i)
		}
	}
}

// Forget forgets the datagrams that came by a port, which is gone. The caller
// asks Dropped afterwards.
func (t *Tracker) Forget(port uint16) {
	for p := &t.ports[port]; p.all.first != 0; {
		i := p.all.first
		t.abandon(i, drop.PortGone)
		t.remove(i)
	}
}
