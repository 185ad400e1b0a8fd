package ethtool

import (
	"errors"
	"testing"

	"culvert/internal/testnet"

	"golang.org/x/sys/unix"
)

func TestDriverAndChannels(t *testing.T) {
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Veth(t, a, "eth0", b, "eth0")
	a.Do(t, func() {
		if driver, err := Driver("eth0"); err != nil || driver != "veth" {
			t.Errorf("driver %q, %v", driver, err)
		}
		// veth_get_channels (drivers/net/veth.c) knows receive and transmit channels only.
		if ch, err := GetChannels("eth0"); err != nil || ch != (Channels{}) {
			t.Errorf("%+v, %v", ch, err)
		}
		if _, err := GetChannels("lo"); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Error(err)
		}
		if _, err := Driver("nowhere"); !errors.Is(err, unix.ENODEV) {
			t.Error(err)
		}
	})
}
