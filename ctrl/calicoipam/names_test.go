package calicoipam

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// The vectors are of Calico's own tests and objects.
func TestNames(t *testing.T) {
	p4, p6 := netip.MustParsePrefix("10.65.0.0/26"), netip.MustParsePrefix("fd00:10:244::40/122")
	for got, want := range map[string]string{
		cidrName(p4):                   "10-65-0-0-26",
		cidrName(p6):                   "fd00-10-244--40-122",
		affinityName("node-1", p4):     "node-1-10-65-0-0-26",
		hostHash("node-1"):             "A3XPYDATRKB7Q4SM2O5FN4RXIHBFIL2PITFX26BAIP5XAB2X74CA",
		handleName("K8s-Net.ABC"):      "k8s-net.abc",
		PodHandle("k8s-pod-net", "c1"): "k8s-pod-net.c1",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	l := affinityLabels("node-1", p6)
	if l[labelVersion] != "6" || l[labelType] != "host" || l[labelHost] != hostHash("node-1") || len(l) != 3 {
		t.Errorf("labels %v", l)
	}
	long := affinityName(strings.Repeat("n", 253), p4)
	if len(long) != 252 || !strings.HasPrefix(long, strings.Repeat("n", 227)+"-10-65-0-0-26-") {
		t.Errorf("%d %s", len(long), long)
	}
	if other := affinityName(strings.Repeat("n", 252)+"m", p4); other == long {
		t.Error("two nodes with one name")
	}
}

func TestCandidatesGoRoundOnce(t *testing.T) {
	for _, tt := range []struct {
		cidr  string
		block int
		count int
	}{{"10.1.0.0/24", 26, 4}, {"10.1.2.0/26", 26, 1}, {"fd00::/116", 122, 64}, {"10.1.2.0/29", 32, 8}} {
		p := pool{cidr: netip.MustParsePrefix(tt.cidr), block: tt.block}
		at := p.candidates("node-1", time.Now())
		seen := map[netip.Prefix]bool{}
		for c, ok := at(); ok; c, ok = at() {
			if seen[c] || c.Masked() != c || !p.cidr.Contains(c.Addr()) {
				t.Errorf("%s: %s comes twice, or is no block of it", tt.cidr, c)
			}
			seen[c] = true
		}
		if len(seen) != tt.count {
			t.Errorf("%s: %d blocks, want %d", tt.cidr, len(seen), tt.count)
		}
	}
	// A node begins at the same place every time.
	p := pool{cidr: netip.MustParsePrefix("10.0.0.0/8"), block: 26}
	a, _ := p.candidates("node-1", time.Time{})()
	b, _ := p.candidates("node-1", time.Now())()
	if other, _ := p.candidates("node-2", time.Now())(); a != b || a == other {
		t.Errorf("node-1 begins at %s and %s, node-2 at %s", a, b, other)
	}
}

func TestOrdinals(t *testing.T) {
	for _, cidr := range []string{"10.1.255.0/24", "10.255.240.0/20", "fd00::ffff:f000/116", "10.0.0.7/32"} {
		b := newBlock(netip.MustParsePrefix(cidr), "n", time.Now())
		a := b.cidr.Addr()
		for ord := range b.spec.Allocations {
			if b.addr(ord) != a || b.ordinal(a) != ord {
				t.Fatalf("%s: ordinal %d is %s, want %s; that one is %d", cidr, ord, b.addr(ord), a, b.ordinal(a))
			}
			a = a.Next()
		}
	}
}
