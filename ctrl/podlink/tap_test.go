package podlink

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"culvert/internal/ethtool"

	"culvert/dataplane/frame"
	"culvert/dataplane/tap"
	"culvert/internal/testnet"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func newTAP(t *testing.T, addrs ...string) *pair {
	p := newPair(t, addrs...)
	p.spec.Kind = TAP
	return p
}

func TestTAPCreateCheckRemove(t *testing.T) {
	p := newTAP(t, "10.244.1.2", "fd00:1::2")
	link := p.create(t)
	if err := p.check(t); err != nil {
		t.Fatalf("check right after create: %v", err)
	}
	eth0 := p.pod.Attrs(t, "eth0")
	if eth0.Index != link.PodIfindex || link.Ifindex != link.PodIfindex || eth0.HardwareAddr.String() != link.MAC.String() ||
		eth0.MTU != 1450 || eth0.TxQLen != tapRing || eth0.Alias != "culvert "+p.spec.HostName {
		t.Errorf("pod end: %+v, link %+v", eth0, link)
	}
	p.pod.Do(t, func() {
		for _, feature := range []string{"tx-udp-segmentation", "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-scatter-gather", "tx-checksum-ip-generic"} {
			if on, err := ethtool.Feature("eth0", feature); err != nil || !on {
				t.Errorf("%s: %v (%v)", feature, on, err)
			}
		}
		if got := addresses(t); got != "10.244.1.2/32 fd00:1::2/128" {
			t.Errorf("addresses of the pod: %s", got)
		}
		out, err := exec.Command("tc", "qdisc", "show", "dev", "eth0").CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "qdisc noqueue") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("queueing discipline: %s (%v)", out, err)
		}
	})
	p.node.Do(t, func() {
		if links, err := netlink.LinkList(); err != nil || len(links) != 1 {
			t.Errorf("%d links on the node (%v)", len(links), err)
		}
		if index, ok, err := Find(p.spec.Ref); !ok || err != nil || index != link.Ifindex {
			t.Errorf("found %d, %v, %v", index, ok, err)
		}
		for range 2 { // the second time there is nothing left to remove
			if err := Remove(p.spec.Ref); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok, err := Find(p.spec.Ref); ok || err != nil {
			t.Errorf("after removal: found %v, %v", ok, err)
		}
	})
	if err := p.check(t); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("check after removal: %v", err)
	}
}

// TestTAPKeepsItsConfiguration: addresses and routes are the same when nobody has
// the device open, and while it is opened again.
func TestTAPKeepsItsConfiguration(t *testing.T) {
	p := newTAP(t, "10.244.1.2", "fd00:1::2")
	p.spec.MAC = p.create(t).MAC
	pool, err := frame.NewPool(256, 4096, true)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for range 3 {
		var q [2]*tap.Queue
		p.pod.Do(t, func() {
			for i := range q {
				if q[i], err = tap.Open("eth0", pool, i == 0); err != nil {
					t.Fatal(err)
				}
			}
		})
		if err := p.check(t); err != nil {
			t.Errorf("open: %v", err)
		}
		for i := range q {
			if err := q[i].Close(); err != nil {
				t.Error(err)
			}
		}
		if err := p.check(t); err != nil {
			t.Errorf("closed: %v", err)
		}
	}
}

func TestTAPRefusesWhatExists(t *testing.T) {
	p := newTAP(t, "10.244.1.2")
	p.create(t)
	p.node.Do(t, func() {
		other := p.spec
		other.HostName = HostName("cvp", "default", "other", "")
		if _, err := Create(other); !errors.Is(err, ErrInterfaceExists) {
			t.Errorf("interface that exists in the pod: %v", err)
		}
		if err := Remove(other.Ref); err != nil { // another's TAP is not its own
			t.Error(err)
		}
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: other.HostName, TxQLen: -1}, PeerName: "peer"}); err != nil {
			t.Fatal(err)
		}
		other.IfName = "eth2"
		if _, err := Create(other); !errors.Is(err, ErrHostNameTaken) {
			t.Errorf("host name that a link has: %v", err)
		}
	})
	if err := p.check(t); err != nil {
		t.Errorf("the first link suffered: %v", err)
	}
}

func TestTAPUndoesEverything(t *testing.T) {
	p := newTAP(t, "10.244.1.2", "10.244.1.2") // fails at the second address
	p.node.Do(t, func() {
		if _, err := Create(p.spec); !errors.Is(err, unix.EEXIST) {
			t.Errorf("error: %v", err)
		}
	})
	p.pod.Do(t, func() {
		if _, err := netlink.LinkByName("eth0"); !isGone(err) {
			t.Errorf("the TAP was left behind (%v)", err)
		}
	})
}

func TestTAPCheckFindsDifferences(t *testing.T) {
	p := newTAP(t, "10.244.1.2")
	p.spec.MAC = p.create(t).MAC
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	eth0 := func() netlink.Link { l, err := netlink.LinkByName("eth0"); must(err); return l }
	for _, step := range []struct {
		want   string
		change func()
	}{
		{"does not have address 10.244.1.2", func() {
			must(netlink.AddrDel(eth0(), hostAddress(netip.MustParseAddr("10.244.1.2"))))
		}},
		{"has MTU 1500", func() { must(netlink.LinkSetMTU(eth0(), 1500)) }},
		{"not the TAP that was made for this pod", func() { must(netlink.LinkSetAlias(eth0(), "mine")) }},
		{"not " + p.spec.MAC.String(), func() { must(netlink.LinkSetHardwareAddr(eth0(), randomMAC())) }},
		{"is down", func() { must(netlink.LinkSetDown(eth0())) }},
		{"is a veth, not a tuntap", func() {
			must(netlink.LinkDel(eth0()))
			must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", TxQLen: -1}, PeerName: "peer"}))
		}},
		{"is missing", func() { must(netlink.LinkDel(eth0())) }},
	} {
		p.pod.Do(t, step.change)
		if err := p.check(t); err == nil || !strings.Contains(err.Error(), step.want) {
			t.Errorf("check says %v, want %q", err, step.want)
		}
	}
}

// TestTAPWithoutNamespace: what names a namespace no more names no TAP, and
// removing it succeeds; what cannot be looked at is an error.
func TestTAPWithoutNamespace(t *testing.T) {
	node, dir := testnet.NewNS(t), t.TempDir()
	if err := os.WriteFile(dir+"/unmounted", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	node.Do(t, func() {
		for _, path := range []string{dir + "/none", dir + "/unmounted", dir + "/unmounted/x", "/proc/999999999/ns/net", "/proc/thread-self/ns/net", "/proc/self/ns/mnt"} {
			ref := Ref{Kind: TAP, HostName: "cvp0", Netns: path, IfName: "eth0"}
			if _, ok, err := Find(ref); ok || err != nil {
				t.Errorf("%s: found %v, %v", path, ok, err)
			}
			if Adopts(ref) {
				t.Errorf("%s: adopted", path)
			}
			if err := Remove(ref); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		for _, path := range []string{"", "a\x00b", strings.Repeat("x", 1<<16)} {
			if _, _, err := Find(Ref{Kind: TAP, Netns: path}); err == nil {
				t.Errorf("%.10q: no error", path)
			}
		}
	})
}
