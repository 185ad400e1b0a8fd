package frag

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"culvert/internal/drop"
	"culvert/internal/packet"
)

// model is what a tracker does, with slices that are searched from end to end.
type model struct {
	cfg Config
	all []*modelDatagram // by age
}

type modelDatagram struct {
	key        modelKey
	born, last uint32
	state      state
	reason     drop.Reason
	flow       packet.Key
	tracked    bool
	units      map[uint32]bool
	end, high  uint32
	bytes      uint32
	held       []modelHold
}

type modelKey struct {
	src, dst packet.Addr
	proto    uint8
	zone     uint16
	id       uint32
	origin   uint64
	port     uint16
}

type modelHold struct{ frame, chunks int }

// modelDrop is a frame that was held and is dropped.
type modelDrop struct {
	frame  int
	reason drop.Reason
}

// modelResult is a Result with frames in place of handles.
type modelResult struct {
	verdict  Verdict
	reason   drop.Reason
	flow     packet.Key
	tracked  bool
	released []int
}

func (m *model) held(port int) (n int) {
	for _, d := range m.all {
		for _, h := range d.held {
			if port < 0 || d.key.port == uint16(port) {
				n += h.chunks
			}
		}
	}
	return n
}

// forget removes a datagram and returns what becomes of its frames.
func (m *model) forget(d *modelDatagram, r drop.Reason) (out []modelDrop) {
	m.all = slices.DeleteFunc(m.all, func(o *modelDatagram) bool { return o == d })
	for _, h := range d.held {
		out = append(out, modelDrop{h.frame, r})
	}
	d.held = nil
	return out
}

func (m *model) oldest(match func(*modelDatagram) bool) *modelDatagram {
	for _, d := range m.all {
		if match(d) {
			return d
		}
	}
	return nil
}

func (m *model) add(f *Fragment, frame int, now uint32) (res modelResult, dropped []modelDrop) {
	k := modelKey{f.Key.Src, f.Key.Dst, f.Key.Proto, f.Key.Zone, f.ID, f.Origin, f.Port}
	if f.Key.Family == 6 {
		k.proto = 0
	}
	d := m.oldest(func(d *modelDatagram) bool { return d.key == k })
	if d != nil && f.Offset == 0 && d.state != waiting && now-d.last >= reuseAfter {
		dropped = append(dropped, m.forget(d, drop.None)...) // it holds nothing
		d = nil
	}
	if d == nil {
		mine := func(d *modelDatagram) bool { return d.key.port == k.port }
		count := 0
		for _, d := range m.all {
			if mine(d) {
				count++
			}
		}
		if count >= m.cfg.Datagrams/2 {
			dropped = append(dropped, m.forget(m.oldest(mine), drop.FragmentTableFull)...)
		} else if len(m.all) == m.cfg.Datagrams {
			dropped = append(dropped, m.forget(m.all[0], drop.FragmentTableFull)...)
		}
		d = &modelDatagram{key: k, born: now, state: waiting, units: map[uint32]bool{}}
		m.all = append(m.all, d)
	}
	d.last = now
	refuse := func(r drop.Reason) (modelResult, []modelDrop) {
		if r != drop.FragmentDuplicate && d.state != condemned {
			for _, h := range d.held {
				dropped = append(dropped, modelDrop{h.frame, r})
			}
			d.state, d.reason, d.held = condemned, r, nil
		}
		return modelResult{verdict: Drop, reason: r}, dropped
	}
	if d.state == condemned {
		return refuse(d.reason)
	}
	to := f.Offset + f.Len
	if f.More && d.end != 0 && to > d.end || !f.More && (to < d.high || d.end != 0 && to != d.end) {
		return refuse(drop.FragmentEnd)
	}
	seen, fresh := 0, 0
	for u := f.Offset / 8; u*8 < to; u++ {
		if d.units[u] {
			seen++
		} else {
			fresh++
		}
	}
	switch {
	case fresh == 0:
		return refuse(drop.FragmentDuplicate)
	case seen != 0:
		return refuse(drop.FragmentOverlap)
	}
	for u := f.Offset / 8; u*8 < to; u++ {
		d.units[u] = true
	}
	d.high, d.bytes = max(d.high, to), d.bytes+f.Len
	if !f.More {
		d.end = to
	}
	switch {
	case f.Offset == 0:
		for _, h := range d.held {
			res.released = append(res.released, h.frame)
		}
		d.state, d.flow, d.tracked, d.held = following, f.Key, f.Tracked, nil
	case d.state == following:
		res.flow, res.tracked = d.flow, d.tracked
	default:
		chunks := int(f.Chunks)
		if len(d.held) == m.cfg.HeldEach || chunks > m.cfg.Chunks || chunks > m.cfg.Held/2 {
			return refuse(drop.FragmentTableFull)
		}
		for _, port := range []int{int(f.Port), -1} {
			most := m.cfg.Held
			if port >= 0 {
				most /= 2
			}
			for m.held(port)+chunks > most {
				victim := m.oldest(func(d *modelDatagram) bool {
					return d.state == waiting && (port < 0 || d.key.port == uint16(port))
				})
				if victim == d {
					return refuse(drop.FragmentTableFull)
				}
				dropped = append(dropped, m.forget(victim, drop.FragmentTableFull)...)
			}
		}
		d.held = append(d.held, modelHold{frame, chunks})
		return modelResult{verdict: Hold}, dropped
	}
	if d.end != 0 && d.bytes == d.end {
		m.forget(d, drop.None)
	}
	return res, dropped
}

// expire forgets at most n datagrams, those of IPv4 first.
func (m *model) expire(now uint32, n int) (dropped []modelDrop) {
	for _, v4 := range []bool{true, false} {
		timeout := uint32(60)
		if v4 {
			timeout = 30
		}
		for ; n > 0; n-- {
			d := m.oldest(func(d *modelDatagram) bool { return d.key.src.Is4() == v4 && now-d.born >= timeout })
			if d == nil {
				break
			}
			dropped = append(dropped, m.forget(d, drop.FragmentOrphan)...)
		}
	}
	return dropped
}

func (m *model) forgetPort(port uint16) (dropped []modelDrop) {
	for {
		d := m.oldest(func(d *modelDatagram) bool { return d.key.port == port })
		if d == nil {
			return dropped
		}
		dropped = append(dropped, m.forget(d, drop.PortGone)...)
	}
}

// pairOf is a tracker and its model, given the same.
type pairOf struct {
	t      *testing.T
	real   *Tracker
	model  model
	frames map[Handle]int
	next   int
	now    uint32
}

func newPair(t *testing.T, cfg Config) *pairOf {
	t.Helper()
	real, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &pairOf{t: t, real: real, model: model{cfg: cfg}, frames: map[Handle]int{}, now: 5}
}

// add gives both the fragment, and fails if they differ.
func (p *pairOf) add(f Fragment) modelResult {
	p.t.Helper()
	p.next++
	want, wantDropped := p.model.add(&f, p.next, p.now)
	res := p.real.Add(&f, p.now)
	got := modelResult{verdict: res.Verdict, reason: res.Reason, tracked: res.Tracked}
	if res.Flow != nil {
		got.flow = *res.Flow
	}
	p.dropped(wantDropped)
	switch res.Verdict {
	case Hold:
		if _, used := p.frames[res.Handle]; used || res.Handle == 0 {
			p.t.Fatalf("handle %d is in use", res.Handle)
		}
		p.frames[res.Handle] = p.next
	case Pass:
		for h := res.Handle; h != 0; {
			got.released = append(got.released, p.frames[h])
			delete(p.frames, h)
			h = p.real.Release(h)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		p.t.Fatalf("fragment %d, %+v: %+v, the model says %+v", p.next, f, got, want)
	}
	p.counts()
	return got
}

func (p *pairOf) dropped(want []modelDrop) {
	p.t.Helper()
	var got []modelDrop
	for h, r := p.real.Dropped(); h != 0; h, r = p.real.Dropped() {
		got = append(got, modelDrop{p.frames[h], r})
		delete(p.frames, h)
	}
	if !slices.Equal(got, want) {
		p.t.Fatalf("after fragment %d: dropped %v, the model says %v", p.next, got, want)
	}
}

func (p *pairOf) counts() {
	p.t.Helper()
	frames := 0
	for _, d := range p.model.all {
		frames += len(d.held)
	}
	s := p.real.Stats()
	if s.Datagrams != len(p.model.all) || s.Held != frames || s.Chunks != p.model.held(-1) || len(p.frames) != frames {
		p.t.Fatalf("after fragment %d: %+v, %d chunks, %d handles; the model has %d datagrams, %d frames, %d chunks",
			p.next, s, s.Chunks, len(p.frames), len(p.model.all), frames, p.model.held(-1))
	}
}

func (p *pairOf) expire(n int) {
	p.t.Helper()
	want := p.model.expire(p.now, n)
	p.real.Expire(p.now, n)
	p.dropped(want)
	p.counts()
}

func (p *pairOf) forget(port uint16) {
	p.t.Helper()
	want := p.model.forgetPort(port)
	p.real.Forget(port)
	p.dropped(want)
	p.counts()
}

// small makes everything scarce.
var small = Config{Datagrams: 6, Held: 10, HeldEach: 4, Chunks: 3, Ports: 4}

// play turns bytes into calls: of few identities and few offsets, so that they meet.
func (p *pairOf) play(script []byte) {
	for ; len(script) >= 4; script = script[4:] {
		op, a, b, c := script[0], script[1], script[2], script[3]
		switch {
		case op >= 250:
			p.expire(int(a % 4))
			continue
		case op >= 240:
			p.now += uint32(a % 32)
			continue
		case op == 239:
			p.forget(uint16(a) % uint16(small.Ports))
			continue
		}
		f := fragment(op&8 != 0, uint32(op&7), uint32(a&7)*8, (1+uint32(a>>3&3))*8, true)
		if a&0x20 != 0 {
			f.More = false
			f.Len -= uint32(b & 7)
		}
		f.Port = uint16(b>>3) & 3
		f.Origin = uint64(f.Port) << 32
		f.Chunks = uint16(1 + c&3)
		f.Tracked = c&4 != 0
		if f.Offset == 0 {
			f.Key.SrcPort, f.Key.DstPort, f.More = uint16(c), 9, true
			f.Len = (f.Len + 7) &^ 7
		}
		p.add(f)
	}
}

// fragment is a fragment of a UDP datagram.
func fragment(v6 bool, id, offset, n uint32, more bool) Fragment {
	f := Fragment{Chunks: 1, Key: packet.Key{Proto: packet.ProtoUDP, Family: 4,
		Src: packet.AddrFrom4(0x0a000001), Dst: packet.AddrFrom4(0x0a000002)}}
	if v6 {
		f.Key.Family, f.Key.Src, f.Key.Dst = 6, packet.Addr{0: 0xfd, 15: 1}, packet.Addr{0: 0xfd, 15: 2}
	}
	f.ID, f.Offset, f.Len, f.More = id, offset, n, more
	return f
}

// Whatever comes, the tracker does what the model does.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p := newPair(t, small)
		script := make([]byte, 20000)
		for i := range script {
			script[i] = byte(rng.Uint32())
		}
		if seed%2 == 0 { // datagrams live longer
			for i := 0; i < len(script); i += 4 {
				if script[i] >= 239 && rng.IntN(8) != 0 {
					script[i] &= 0x7f
				}
			}
		}
		p.play(script)
	}
}

func FuzzTracker(f *testing.F) {
	f.Add([]byte{0, 8, 0, 0, 0, 1, 0, 0, 0, 0x22, 0, 0})                        // reverse order
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0x22, 0, 0, 0, 1, 0, 0})            // in order, then a late duplicate
	f.Add([]byte{1, 2, 0, 0, 1, 9, 0, 0, 1, 0, 0, 0})                           // overlap before the first
	f.Add([]byte{2, 1, 0, 0, 245, 31, 0, 0, 251, 3, 0, 0, 2, 0, 0, 0})          // an orphan
	f.Add([]byte{3, 1, 0, 2, 4, 1, 0, 2, 5, 1, 0, 2, 6, 1, 8, 2, 239, 0, 0, 0}) // no room, a port goes
	f.Add([]byte{0, 0, 0, 0, 0, 0x23, 0, 0, 241, 2, 0, 0, 0, 0, 0, 1, 0, 1, 0}) // an identification again
	f.Fuzz(func(t *testing.T, script []byte) {
		newPair(t, small).play(script[:min(len(script), 4000)])
	})
}
