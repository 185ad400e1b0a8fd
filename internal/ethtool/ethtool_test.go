package ethtool

import (
	"errors"
	"testing"

	"culvert/internal/testnet"
)

func TestSet(t *testing.T) {
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Veth(t, a, "eth0", b, "eth0")
	a.Do(t, func() {
		for _, want := range []bool{true, false, true} {
			if err := Set("eth0", want, GRO, "no-such-offload"); err != nil {
				t.Fatal(err)
			}
			if on, err := Feature("eth0", GRO); err != nil || on != want {
				t.Errorf("GRO is on: %t, want %t: %v", on, want, err)
			}
		}
	})
	b.Do(t, func() {
		if on, err := Feature("eth0", GRO); err != nil || on {
			t.Errorf("the other end's GRO is on: %t, %v", on, err)
		}
	})
}

func TestErrors(t *testing.T) {
	ns := testnet.NewNS(t)
	ns.Do(t, func() {
		if _, err := Feature("lo", "no-such-offload"); !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
		if err := Set("nowhere", true, GRO); err == nil {
			t.Error("a device that does not exist was switched")
		}
		if err := Set("a-name-that-is-too-long", true, GRO); err == nil {
			t.Error("a device of an impossible name was switched")
		}
		if err := Set("lo", false, "loopback"); err == nil { // fixed on
			t.Error("an offload that cannot be switched off is said to be off")
		}
	})
}
