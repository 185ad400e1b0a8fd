package outer

import (
	"net/netip"
	"testing"
	"time"
)

func TestPaths(t *testing.T) {
	a4, a6, nobody := netip.MustParseAddr(peer4), netip.MustParseAddr(peer6), netip.MustParseAddr("192.168.0.77")
	p := NewPaths()
	p.SetPeers([]netip.Addr{a4, a6})
	now := time.Unix(1000, 0)
	const life = 10 * time.Minute
	for _, s := range []struct {
		what           string
		peer           netip.Addr
		kind           Kind
		size, mtu      int
		known, changed bool
		want           int
	}{
		{"of nobody", nobody, TooBig, 1500, 1400, false, false, 0},
		{"another error", a4, PortUnreachable, 1500, 0, true, false, 0},
		{"an MTU that the packet had", a4, TooBig, 1400, 1400, true, false, 0},
		{"the first", a4, TooBig, 1500, 1400, true, true, 1400},
		{"the same", a4, TooBig, 1500, 1400, true, false, 1400},
		{"a larger one", a4, TooBig, 1500, 1450, true, false, 1400},
		{"a smaller one", a4, TooBig, 1400, 1300, true, true, 1300},
		{"none: an old router", a4, TooBig, 1300, 0, true, true, 576},
		{"too small to be true", a4, TooBig, 1300, 68, true, false, 576},
		{"below what IPv6 has", a6, TooBig, 1500, 1279, true, false, 0},
		{"what IPv6 has", a6, TooBig, 1500, 1280, true, true, 1280},
	} {
		e := Error{Kind: s.kind, Peer: s.peer, Size: s.size, MTU: s.mtu}
		known, changed := p.Note(&e, now, life)
		if known != s.known || changed != s.changed || p.MTUs()[s.peer] != s.want {
			t.Errorf("%s: %v, %v, %d", s.what, known, changed, p.MTUs()[s.peer])
		}
	}
	if gone := p.Expire(now.Add(life - 1)); len(gone) != 0 {
		t.Errorf("%v expired early", gone)
	}
	p.Note(&Error{Kind: TooBig, Peer: a4, Size: 1500, MTU: 576}, now.Add(time.Minute), life) // told again
	if gone := p.Expire(now.Add(life)); len(gone) != 1 || gone[0] != a6 {
		t.Errorf("%v expired", gone)
	}
	if gone := p.Expire(now.Add(life + time.Minute)); len(gone) != 1 || gone[0] != a4 || len(p.MTUs()) != 0 {
		t.Errorf("%v expired; %v are left", gone, p.MTUs())
	}
	path := p.All()[a4]
	if path.Errors[TooBig] != 8 || path.Errors[PortUnreachable] != 1 {
		t.Errorf("counted %v", path.Errors)
	}

	d := Datagram{Peer: a4, Fragment: 1400}
	for i, s := range []struct {
		after       time.Duration
		known, tell bool
	}{{0, true, true}, {time.Second, true, false}, {time.Hour, true, true}} {
		if known, tell := p.NoteFragments(&d, now.Add(s.after)); known != s.known || tell != s.tell {
			t.Errorf("fragments %d: %v, %v", i, known, tell)
		}
	}
	if known, tell := p.NoteFragments(&Datagram{Peer: nobody}, now); known || tell {
		t.Error("fragments of nobody were noted")
	}
	p.SetPeers([]netip.Addr{a6}) // one leaves: the sums stay
	errs, frags := p.Totals()
	if errs[TooBig] != 10 || errs[PortUnreachable] != 1 || frags != 3 || len(p.All()) != 1 {
		t.Errorf("totals %v, %d; %d peers", errs, frags, len(p.All()))
	}
}
