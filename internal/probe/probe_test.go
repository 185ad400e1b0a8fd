package probe

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/internal/testnet"
)

// TestTries: what this machine can do is found to work, and nothing is left of it.
func TestTries(t *testing.T) {
	here, err := Devices()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Dataplane(), TAP(), VXLAN()); err != nil {
		t.Error(err)
	}
	after, err := Devices()
	if err != nil || len(after) != len(here) {
		t.Errorf("%d devices before, %d after: %v", len(here), len(after), err)
	}
}

// withoutCapabilities is set in the process of TestTriesFail that has none.
const withoutCapabilities = "PROBE_WITHOUT_CAPABILITIES"

// TestTriesFail: without capabilities each of them says so.
func TestTriesFail(t *testing.T) {
	if os.Getenv(withoutCapabilities) != "" {
		for name, try := range map[string]func() error{"dataplane": Dataplane, "tap": TAP, "vxlan": VXLAN} {
			if err := try(); !errors.Is(err, unix.EPERM) {
				t.Errorf("%s: %v", name, err)
			}
		}
		return
	}
	again := exec.Command("setpriv", "--bounding-set=-all", "--inh-caps=-all", os.Args[0], "-test.run=^TestTriesFail$")
	again.Env = append(os.Environ(), withoutCapabilities+"=1")
	if out, err := again.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestLook(t *testing.T) {
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Veth(t, a, "eth0", b, "eth0")
	a.Do(t, func() {
		err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "flannel.1"}, VxlanId: 1, Port: 8472})
		if err != nil {
			t.Fatal(err)
		}
		n, err := Look("eth0")
		if err != nil || n.Driver != "veth" || n.Program != 0 || !n.XDPKnown || !n.NativeXDP || n.ZeroCopy {
			t.Errorf("%+v, %v", n, err)
		}
		if _, err := Look("eth9"); err == nil {
			t.Error("a device that is not there was looked at")
		}
		all, err := Devices()
		i := slices.IndexFunc(all, func(d Device) bool { return d.Name == "flannel.1" })
		if err != nil || i < 0 || all[i].Kind != "vxlan" || all[i].VNI != 1 || all[i].Port != 8472 {
			t.Errorf("%+v, %v", all, err)
		}
	})
}

// TestPing: of a path that is narrower than the device, small packets get through and
// large ones do not; of a device that is narrower, it is told.
func TestPing(t *testing.T) {
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Veth(t, a, "eth0", b, "eth0")
	for _, c := range []struct {
		ns   *testnet.NS
		addr []string
	}{{a, []string{"10.9.0.1/24", "fd09::1/64"}}, {b, []string{"10.9.0.2/24", "fd09::2/64"}}} {
		for _, addr := range c.addr {
			c.ns.AddAddr(t, "eth0", addr)
		}
	}
	b.Do(t, func() { mtu(t, 1400) })
	a.Do(t, func() {
		for _, peer := range []string{"10.9.0.2", "fd09::2"} {
			to := netip.MustParseAddr(peer)
			if err := errors.Join(Ping(t.Context(), to, 100), Ping(t.Context(), to, 1400)); err != nil {
				t.Errorf("%s: %v", to, err)
			}
			if err := Ping(t.Context(), to, 1500); !errors.Is(err, ErrNoAnswer) {
				t.Errorf("%s, larger than the far device takes: %v", to, err)
			}
			if err := Ping(t.Context(), to, 1501); !errors.Is(err, ErrTooBig) {
				t.Errorf("%s, larger than the own device takes: %v", to, err)
			}
		}
		if err := Ping(t.Context(), netip.MustParseAddr("10.9.0.9"), 100); err == nil {
			t.Error("an address that nobody has answered")
		}
	})
}

func mtu(t *testing.T, n int) {
	l, err := netlink.LinkByName("eth0")
	if err == nil {
		err = netlink.LinkSetMTU(l, n)
	}
	if err != nil {
		t.Error(err)
	}
}
