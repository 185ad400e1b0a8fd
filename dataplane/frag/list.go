package frag

// list is a queue of datagrams, the oldest first.
type list struct {
	first, last uint16
	n           int
}

// link is a datagram's place in a list of one kind.
type link struct{ prev, next uint16 }

// The kinds of lists that a datagram can be on at once.
const (
	byAge = iota
	byPort
	byWait
	byPortWait
	numLists
)

func (t *Tracker) push(l *list, kind int, i uint16) {
	t.datagrams[i].links[kind] = link{prev: l.last}
	if l.last != 0 {
		t.datagrams[l.last].links[kind].next = i
	} else {
		l.first = i
	}
	l.last = i
	l.n++
}

func (t *Tracker) pull(l *list, kind int, i uint16) {
	at := t.datagrams[i].links[kind]
	if at.prev != 0 {
		t.datagrams[at.prev].links[kind].next = at.next
	} else {
		l.first = at.next
	}
	if at.next != 0 {
		t.datagrams[at.next].links[kind].prev = at.prev
	} else {
		l.last = at.prev
	}
	l.n--
}

// age is the list of the datagram's family.
func (t *Tracker) age(d *datagram) *list {
	if d.id.Family == 6 {
		return &t.ages[1]
	}
	return &t.ages[0]
}

// enlist puts a datagram that waits on all lists, as the newest.
func (t *Tracker) enlist(i uint16) {
	d := &t.datagrams[i]
	p := &t.ports[d.port]
	t.push(t.age(d), byAge, i)
	t.push(&p.all, byPort, i)
	t.push(&t.waits, byWait, i)
	t.push(&p.waits, byPortWait, i)
}

// delist takes a datagram from the lists that it is on.
func (t *Tracker) delist(i uint16) {
	d := &t.datagrams[i]
	t.unwait(i)
	t.pull(t.age(d), byAge, i)
	t.pull(&t.ports[d.port].all, byPort, i)
}

// unwait takes a datagram that waits from the lists of those.
func (t *Tracker) unwait(i uint16) {
	d := &t.datagrams[i]
	if d.state != waiting {
		return
	}
	t.pull(&t.waits, byWait, i)
	t.pull(&t.ports[d.port].waits, byPortWait, i)
}
