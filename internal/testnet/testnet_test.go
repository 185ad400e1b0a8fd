package testnet

import (
	"net"
	"strings"
	"testing"
	"time"
)

func TestVethCarriesPings(t *testing.T) {
	a, b := NewNS(t), NewNS(t)
	left, right := Name("l"), Name("r")
	Veth(t, a, left, b, right, MTU(9000), Queues(2))
	a.AddAddr(t, left, "10.9.0.1/24")
	b.AddAddr(t, right, "10.9.0.2/24")
	a.AddAddr(t, left, "fd00:9::1/64")
	b.AddAddr(t, right, "fd00:9::2/64")
	a.MustPing(t, "10.9.0.2")
	b.MustPing(t, "fd00:9::1")
	if err := a.Ping(t, "10.9.0.2", 8000, time.Second); err != nil {
		t.Errorf("ping with 8000 bytes: %v", err)
	}
	if err := a.Ping(t, "10.9.0.3", 56, 100*time.Millisecond); err == nil {
		t.Error("an address that nobody has answered")
	}
	if got := b.Attrs(t, right); got.MTU != 9000 || got.NumRxQueues != 2 {
		t.Errorf("peer has MTU %d and %d queues, want 9000 and 2", got.MTU, got.NumRxQueues)
	}
	a.Delete(t, left)
	b.Do(t, func() {
		if _, err := net.InterfaceByName(right); err == nil {
			t.Error("the peer outlived the removed end")
		}
	})
}

func TestDoIsInsideAndStaysThere(t *testing.T) {
	ns := NewNS(t)
	var inside []net.Interface
	ns.Do(t, func() { inside, _ = net.Interfaces() })
	for _, i := range inside {
		if strings.HasPrefix(i.Name, "eth") {
			t.Errorf("the namespace sees %s", i.Name)
		}
	}
	defer func() {
		if recover() != "thrown" {
			t.Error("Do swallowed a panic")
		}
	}()
	ns.Do(t, func() { panic("thrown") })
}
