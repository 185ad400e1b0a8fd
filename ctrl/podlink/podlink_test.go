package podlink

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/ethtool"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/internal/testnet"
)

// pair is a node and a pod, each a namespace, and the spec of their link.
type pair struct {
	node, pod *testnet.NS
	spec      Spec
}

func newPair(t *testing.T, addrs ...string) *pair {
	p := &pair{node: testnet.NewNS(t), pod: testnet.NewNS(t)}
	p.spec = Spec{
		Ref: Ref{HostName: HostName("cvp", "default", t.Name(), ""), Netns: path(p.pod), IfName: "eth0"},
		MTU: 1450, Queues: 2, Alias: "culvert test " + t.Name(),
	}
	for _, a := range addrs {
		p.spec.Addrs = append(p.spec.Addrs, netip.MustParseAddr(a))
	}
	return p
}

func path(ns *testnet.NS) string { return fmt.Sprintf("/proc/self/fd/%d", int(ns.Handle())) }

func (p *pair) create(t *testing.T) (link Link) {
	t.Helper()
	p.node.Do(t, func() {
		var err error
		if link, err = Create(p.spec); err != nil {
			t.Fatal(err)
		}
	})
	return link
}

func (p *pair) check(t *testing.T) (err error) {
	p.node.Do(t, func() { err = Check(p.spec) })
	return err
}

func TestHostName(t *testing.T) {
	// What Calico's rule gives for default/nginx.
	if got := HostName("cali", "default", "nginx", "x"); got != "calic440f455693" {
		t.Errorf("default/nginx: %s", got)
	}
	if a, b := HostName("cv", "", "", "abc"), HostName("cv", "", "", "abd"); a == b || len(a) != 13 {
		t.Errorf("by container ID: %s, %s", a, b)
	}
}

func TestCreateCheckRemove(t *testing.T) {
	p := newPair(t, "10.244.1.2", "fd00:1::2")
	link := p.create(t)
	if err := p.check(t); err != nil {
		t.Fatalf("check right after create: %v", err)
	}
	host := p.node.Attrs(t, p.spec.HostName)
	if host.Index != link.Ifindex || host.HardwareAddr.String() != "ee:ee:ee:ee:ee:ee" ||
		host.MTU != 65535 || host.NumRxQueues != 2 || host.Alias != p.spec.Alias {
		t.Errorf("host end: %+v, link %+v", host, link)
	}
	eth0 := p.pod.Attrs(t, "eth0")
	if eth0.Index != link.PodIfindex || eth0.HardwareAddr.String() != link.MAC.String() || eth0.MTU != 1450 {
		t.Errorf("pod end: %+v, link %+v", eth0, link)
	}
	p.pod.Do(t, func() {
		for feature, want := range map[string]bool{
			"tx-udp-segmentation": false, "tx-vlan-hw-insert": false, "tx-tcp-segmentation": true,
			"tx-scatter-gather": true, "tx-checksum-ip-generic": true,
		} {
			if on, err := ethtool.Feature("eth0", feature); err != nil || on != want {
				t.Errorf("%s: %v, want %v (%v)", feature, on, want, err)
			}
		}
		if got := addresses(t); got != "10.244.1.2/32 fd00:1::2/128" {
			t.Errorf("addresses of the pod: %s", got)
		}
	})
	p.node.Do(t, func() {
		b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + p.spec.HostName + "/disable_ipv6")
		if err == nil && strings.TrimSpace(string(b)) != "1" {
			t.Errorf("IPv6 is on at the host end")
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

// addresses lists the global addresses of eth0 that are usable now.
func addresses(t *testing.T) string {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range list {
		if !a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0 {
			out = append(out, a.IPNet.String())
		}
	}
	return strings.Join(out, " ")
}

func TestCreateRefusesWhatExists(t *testing.T) {
	p := newPair(t, "10.244.1.2")
	p.create(t)
	p.node.Do(t, func() {
		other := p.spec
		other.HostName = HostName("cvp", "default", "other", "")
		if _, err := Create(other); !errors.Is(err, ErrInterfaceExists) {
			t.Errorf("interface that exists in the pod: %v", err)
		}
		if _, ok, _ := Find(other.Ref); ok {
			t.Errorf("a host end was left behind")
		}
		other = p.spec
		other.IfName = "eth1"
		if _, err := Create(other); !errors.Is(err, ErrHostNameTaken) {
			t.Errorf("host end that exists: %v", err)
		}
	})
	if err := p.check(t); err != nil {
		t.Errorf("the first link suffered: %v", err)
	}
}

func TestCreateUndoesEverything(t *testing.T) {
	// The same address twice fails at the second one, after the pair was made.
	p := newPair(t, "10.244.1.2", "10.244.1.2")
	p.node.Do(t, func() {
		if _, err := Create(p.spec); !errors.Is(err, unix.EEXIST) {
			t.Errorf("error: %v", err)
		}
		if _, ok, err := Find(p.spec.Ref); ok || err != nil {
			t.Errorf("the pair was left behind (%v)", err)
		}
	})
}

func TestBadNetns(t *testing.T) {
	p := newPair(t, "10.244.1.2")
	dir := t.TempDir()
	fifo, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "file")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"empty": "", "missing": dir + "/none", "fifo": fifo, "file": file, "directory": dir,
		"other kind": "/proc/self/ns/mnt", "own": "/proc/thread-self/ns/net", "device": "/dev/null",
		"nul byte": "a\x00b", "huge": strings.Repeat("x", 1<<16),
	} {
		p.node.Do(t, func() {
			spec := p.spec
			spec.Netns = path
			_, err := Create(spec)
			var bad *NetnsError
			if !errors.As(err, &bad) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

func TestBadSpec(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"long name":     func(s *Spec) { s.HostName = "a123456789012345" },
		"no ifname":     func(s *Spec) { s.IfName = "" },
		"MTU":           func(s *Spec) { s.MTU = 67 },
		"queues":        func(s *Spec) { s.Queues = 0 },
		"kind":          func(s *Spec) { s.Kind = "macvlan" },
		"MTU of a TAP":  func(s *Spec) { s.Kind, s.MTU = TAP, 65522 },
		"multicast MAC": func(s *Spec) { s.MAC = []byte{1, 0, 0, 0, 0, 1} },
		"mapped":        func(s *Spec) { s.Addrs = []netip.Addr{netip.MustParseAddr("::ffff:1.2.3.4")} },
	} {
		spec := Spec{Ref: Ref{HostName: "cvp0", Netns: "/none", IfName: "eth0"}, MTU: 1450, Queues: 1}
		change(&spec)
		_, err := Create(spec)
		var bad *NetnsError
		if err == nil || errors.As(err, &bad) {
			t.Errorf("%s: passed validation (%v)", name, err)
		}
	}
}

func TestCheckFindsDifferences(t *testing.T) {
	p := newPair(t, "10.244.1.2", "fd00:1::2")
	link := p.create(t)
	p.spec.MAC = link.MAC
	if err := p.check(t); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	routes := podRoutes(&p.spec, link.PodIfindex)
	eth0 := func() netlink.Link { l, err := netlink.LinkByName("eth0"); must(err); return l }
	for _, step := range []struct {
		want   string
		change func()
	}{
		{"lacks the route default via fe80::ecee:eeff:feee:eeee", func() { must(netlink.RouteDel(&routes[2])) }},
		{"lacks the route default via 169.254.1.1", func() { must(netlink.RouteDel(&routes[1])) }},
		{"does not have address 10.244.1.2", func() {
			must(netlink.AddrDel(eth0(), hostAddress(netip.MustParseAddr("10.244.1.2"))))
		}},
		{"has MTU 1500", func() { must(netlink.LinkSetMTU(eth0(), 1500)) }},
		{"not " + link.MAC.String(), func() { must(netlink.LinkSetHardwareAddr(eth0(), randomMAC())) }},
		{"is down", func() { must(netlink.LinkSetDown(eth0())) }},
		{"is missing", func() { must(netlink.LinkDel(eth0())) }},
	} {
		p.pod.Do(t, step.change)
		if err := p.check(t); err == nil || !strings.Contains(err.Error(), step.want) {
			t.Errorf("check says %v, want %q", err, step.want)
		}
	}
}

func TestAdopts(t *testing.T) {
	p := newPair(t, "10.244.1.2")
	p.create(t)
	p.node.Do(t, func() {
		if !Adopts(p.spec.Ref) {
			t.Error("does not know its own pair")
		}
		with := func(f func(*Ref)) Ref { r := p.spec.Ref; f(&r); return r }
		for _, other := range []Ref{
			with(func(r *Ref) { r.IfName = "lo" }), with(func(r *Ref) { r.HostName = "lo" }),
			with(func(r *Ref) { r.Netns = "/none" }), with(func(r *Ref) { r.Kind = TAP }),
		} {
			if Adopts(other) {
				t.Errorf("adopts what is not its own: %+v", other)
			}
		}
		if err := Remove(Ref{HostName: "lo"}); err == nil {
			t.Error("removes a link that is no veth")
		}
	})
}

func BenchmarkCreateRemove(b *testing.B) {
	node, pod := testnet.NewNS(b), testnet.NewNS(b)
	for _, kind := range []Kind{Veth, TAP} {
		b.Run(string(kind), func(b *testing.B) {
			ref := Ref{Kind: kind, HostName: "cvpbench", Netns: path(pod), IfName: "eth0"}
			spec := Spec{Ref: ref, MTU: 1450, Queues: 1, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}
			node.Do(b, func() {
				for b.Loop() {
					if _, err := Create(spec); err != nil {
						b.Fatal(err)
					}
					if err := Remove(ref); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
