package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/flavour"
	"culvert/ctrl/pods"
	"culvert/ctrl/underlay"
	"culvert/dataplane/xsk"
	"culvert/fib"
	"culvert/internal/packet"
)

func TestWhatIsDueAboutAnUplink(t *testing.T) {
	now := time.Now()
	was := underlay.Link{Index: 7, Name: "eth0", MAC: packet.MAC{2}, MTU: 1500, Queues: 2, Up: true}
	held := uplink{link: was, taken: true}
	failed := uplink{link: was, err: errors.New("busy"), tried: now.Add(-holdAgain / 2)}
	later := failed
	later.tried = now.Add(-holdAgain)
	with := func(f func(*underlay.Link)) underlay.Link { l := was; f(&l); return l }
	for _, c := range []struct {
		name          string
		u             uplink
		l             underlay.Link
		release, hold bool
	}{
		{"new", uplink{}, was, false, true},
		{"never there", uplink{}, underlay.Link{Name: "eth0"}, false, false},
		{"held", held, was, false, false},
		{"held, down", held, with(func(l *underlay.Link) { l.Up = false }), false, false},
		{"held, an address more", held, with(func(l *underlay.Link) { l.Addrs = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")} }), false, false},
		{"held, other MAC", held, with(func(l *underlay.Link) { l.MAC[5] = 1 }), true, true},
		{"held, other MTU", held, with(func(l *underlay.Link) { l.MTU = 9000 }), true, true},
		{"held, other queues", held, with(func(l *underlay.Link) { l.Queues = 4 }), true, true},
		{"held, gone", held, underlay.Link{Name: "eth0"}, true, false},
		{"held, made anew", held, with(func(l *underlay.Link) { l.Index = 8 }), true, true},
		{"failed a moment ago", failed, was, false, false},
		{"failed a moment ago, made anew", failed, with(func(l *underlay.Link) { l.Index = 8 }), false, true},
		{"failed a while ago", later, was, false, true},
	} {
		if release, hold := c.u.due(c.l, now); release != c.release || hold != c.hold {
			t.Errorf("%s: release %t, hold %t", c.name, release, hold)
		}
	}
}

func TestUplinkAddr(t *testing.T) {
	own := func(cidrs ...string) (list []net.Addr) {
		for _, c := range cidrs {
			ip, n, err := net.ParseCIDR(c)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return list
	}
	uplinks := []underlay.Link{{Name: "eth0", Addrs: []netip.Prefix{
		netip.MustParsePrefix("169.254.9.9/16"), netip.MustParsePrefix("10.0.0.5/24"), netip.MustParsePrefix("2001:db8::5/64"),
	}}}
	for _, c := range []struct {
		name, public, want string
		own                []net.Addr
	}{
		{"on the uplink", "10.0.0.5", "", own("10.0.0.5/24")},
		{"on lo", "192.0.2.1", "", own("127.0.0.1/8", "192.0.2.1/32")},
		{"IPv6 on lo", "2001:db8::1", "", own("2001:db8::1/128")},
		{"nowhere", "203.0.113.7", "10.0.0.5", own("127.0.0.1/8", "10.0.0.5/24")},
		{"IPv6, nowhere", "2001:db8:9::1", "2001:db8::5", own("10.0.0.5/24")},
	} {
		got, _ := uplinkAddr(netip.MustParseAddr(c.public), c.own, uplinks)
		if want, _ := netip.ParseAddr(c.want); got != want {
			t.Errorf("%s: %v stands in, want %v", c.name, got, want)
		}
	}
	if got, _ := uplinkAddr(netip.MustParseAddr("203.0.113.7"), nil, nil); got.IsValid() {
		t.Errorf("%v stands in without an uplink", got)
	}
}

func TestPodProblems(t *testing.T) {
	recs := []pods.Record{
		{Namespace: "a", Pod: "well", Queues: 2, State: pods.StateReady},
		{Namespace: "a", Pod: "many", Queues: 8, State: pods.StateReady},
		{Namespace: "a", Pod: "few", Queues: 1, State: pods.StateReady},
		{Namespace: "a", Pod: "out", Queues: 2, State: pods.StateDetached, Cause: "busy"},
		{Namespace: "a", Pod: "leaving", Queues: 2, State: pods.StateDetached},
		{Namespace: "a", Pod: "gone", Queues: 1, State: pods.StateGone},
	}
	want := []string{"pod a/few: 1 queues for 2 workers: what the others have for it is dropped; recreate it", "pod a/out is detached: busy"}
	if got := podProblems(recs, 2); !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", got, want)
	}
}

// While pods are brought back, the plugin is told to come back, whatever it asks.
func TestCNIWaitsForRestore(t *testing.T) {
	a := &Agent{}
	for command, code := range map[string]uint{
		api.CNIAdd: api.CNITryAgain, api.CNIDel: api.CNITryAgain, api.CNICheck: api.CNITryAgain, api.CNIStatus: api.CNINotAvailable,
	} {
		if r := a.CNI(context.Background(), api.CNIRequest{Command: command}); r.Code != code || !strings.Contains(r.Details, "brought back") {
			t.Errorf("%s: code %d, %s: %s", command, r.Code, r.Msg, r.Details)
		}
	}
	if err := a.readyForPods(); !errors.Is(err, errRestoring) {
		t.Errorf("ready for pods: %v", err)
	}
}

// What the steering programs are told: the ends of the tunnels there can be, and the
// pods' prefixes only while some peer sends packets as they are.
func TestWhatIsSteered(t *testing.T) {
	cidrs := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}
	own := netip.MustParseAddr("192.168.0.1")
	vxlan, ipip := xsk.Endpoint{Addr: own, Port: 4789}, xsk.Endpoint{Addr: own}
	for _, c := range []struct {
		encap    string
		peers    []string
		ends     []xsk.Endpoint
		prefixes bool
	}{
		{flavour.VXLAN, nil, []xsk.Endpoint{vxlan}, false},
		{flavour.VXLAN, []string{flavour.VXLAN}, []xsk.Endpoint{vxlan}, false},
		{flavour.VXLAN, []string{flavour.VXLAN, flavour.None}, []xsk.Endpoint{vxlan}, true},
		{flavour.IPIP, []string{flavour.IPIP}, []xsk.Endpoint{ipip}, false},
		{flavour.IPIP, []string{flavour.None}, []xsk.Endpoint{ipip}, true},
		{flavour.None, nil, nil, false},
		{flavour.None, []string{flavour.None}, nil, true},
	} {
		d := &flavour.Desired{Encap: c.encap, Port: 4789, Local: &flavour.Node{PublicIP: own, PodCIDRs: cidrs},
			NAT: flavour.NAT{Sources: cidrs, Low: 61000, High: 61001}}
		for _, e := range c.peers {
			d.Peers = append(d.Peers, flavour.Peer{Encap: e})
		}
		if got := endpoints(d); !slices.Equal(got, c.ends) {
			t.Errorf("%s with peers of %v: endpoints %v, want %v", c.encap, c.peers, got, c.ends)
		}
		if got := prefixes(d); (len(got) != 0) != c.prefixes {
			t.Errorf("%s with peers of %v: prefixes %v", c.encap, c.peers, got)
		}
	}
	bare := &flavour.Desired{Encap: flavour.VXLAN, Local: &flavour.Node{PublicIP: own, PodCIDRs: cidrs}}
	if got := prefixes(bare); len(got) != 1 || len(ownPorts(bare, nil).Ranges) != 0 {
		t.Errorf("pods that keep their addresses outside: prefixes %v, ports %v", got, ownPorts(bare, nil))
	}
	mapped := []fib.PortMapping{{Proto: packet.ProtoUDP, Port: 8053}}
	if got := ownPorts(bare, mapped); len(got.Ranges) != 1 || got.Addrs[0] != own || got.Ranges[0] != (xsk.PortRange{Proto: packet.ProtoUDP, Low: 8053, High: 8053}) {
		t.Errorf("a mapped port: %v", got)
	}
	bare.NAT = flavour.NAT{Sources: cidrs, Low: 61000, High: 61001}
	if got := ownPorts(bare, mapped); len(got.Ranges) != 5 || got.Addrs[0] != own || got.Ranges[0].High != 61001 {
		t.Errorf("pods that do not: ports %v", got)
	}
	if endpoints(&flavour.Desired{Encap: flavour.VXLAN}) != nil || prefixes(&flavour.Desired{Peers: []flavour.Peer{{Encap: flavour.None}}}) != nil {
		t.Error("something is steered to a node that nobody knows yet")
	}
}
