package ipamcheck

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"culvert/ctrl/api"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// good is a node in order: a pod with two families, one whose ADD is on its way, a
// tunnel address, an address that another node has borrowed.
func good() *View {
	return &View{
		Node:   "n1",
		Owners: map[string][]netip.Addr{"c1@eth0": {addr("10.1.0.1"), addr("fd00::1")}, "c2@eth0": {addr("10.1.0.2")}},
		Pods: []Pod{
			{Owner: "c1@eth0", Name: "default/a", Ready: true, Addrs: []netip.Addr{addr("10.1.0.1"), addr("fd00::1")}, Linked: true, Netns: true, Handle: "net.c1",
				Object: &Object{Here: true, IPs: []string{"fd00:0::1", "10.1.0.1"}}},
			{Owner: "c2@eth0", Name: "default/b", Addrs: []netip.Addr{addr("10.1.0.2")}, Handle: "net.c2"},
		},
		Links: []Link{{"cv1", "default/a"}},
		Names: map[string]bool{"cv1": true, "cv2": true},
		Blocks: []Block{{"10.1.0.0/30", true, []Given{
			{Addr: addr("10.1.0.0"), Handle: "vxlan-tunnel-addr-n1", Node: "n1"}, {Addr: addr("10.1.0.1"), Handle: "net.c1", Node: "n1", Pod: "default/a"},
			{Addr: addr("10.1.0.3"), Handle: "net.x", Node: "n2", Pod: "default/x"}}},
			{"fd00::/126", true, []Given{{Addr: addr("fd00::1"), Handle: "net.c1", Node: "n1", Pod: "default/a"}}}},
		Handles: map[string]map[string]int{"vxlan-tunnel-addr-n1": {"10.1.0.0/30": 1}, "net.c1": {"10.1.0.0/30": 1, "fd00::/126": 1}, "net.x": {"10.1.0.0/30": 1, "10.9.0.0/30": 1}},
		Owed:    map[string]bool{"net.c2": true},
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*View)
		want []string // kind, address, owner
	}{
		{"in order", func(*View) {}, nil},
		{"not Calico's", func(v *View) { v.Blocks, v.Handles = nil, nil }, nil},
		{"no record", func(v *View) { v.Owners["x@eth0"] = []netip.Addr{addr("10.1.0.9")} }, []string{"unowned 10.1.0.9 x@eth0"}},
		{"not taken", func(v *View) { v.Owners["c1@eth0"] = v.Owners["c1@eth0"][:1] }, []string{"not_reserved fd00::1 default/a"}},
		{"no address", func(v *View) { v.Pods[0].Addrs, v.Owners["c1@eth0"] = nil, nil }, []string{"no_address  default/a"}},
		{"namespace gone", func(v *View) { v.Pods[0].Linked, v.Pods[0].Netns = false, false }, []string{"no_netns 10.1.0.1,fd00::1 default/a"}},
		{"link gone", func(v *View) { v.Pods[0].Linked = false }, []string{"no_link 10.1.0.1,fd00::1 default/a"}},
		{"stray link", func(v *View) { v.Links = append(v.Links, Link{"cv9", "default/old"}) }, []string{"stray_link  cv9"}},
		{"no such pod", func(v *View) { v.Pods[0].Object = &Object{} }, []string{"pod_gone 10.1.0.1,fd00::1 default/a"}},
		{"no status yet", func(v *View) { v.Pods[0].Object = &Object{Here: true} }, nil},
		{"other address", func(v *View) { v.Pods[0].Object.IPs = []string{"10.1.0.7"} }, []string{"pod_differs 10.1.0.1,fd00::1 default/a"}},
		{"block leaks", func(v *View) {
			v.Blocks[0].Given = append(v.Blocks[0].Given, Given{Addr: addr("10.1.0.2"), Handle: "net.old", Node: "n1", Pod: "default/old"})
			v.Handles["net.old"] = map[string]int{"10.1.0.0/30": 1}
		}, []string{"block_leak 10.1.0.2 default/old"}},
		{"released already", func(v *View) {
			v.Blocks[0].Given = append(v.Blocks[0].Given, Given{Addr: addr("10.1.0.2"), Handle: "net.old", Node: "n1", Pod: "default/old", Released: true})
		}, nil},
		{"about to be released", func(v *View) {
			v.Blocks[0].Given = append(v.Blocks[0].Given, Given{Addr: addr("10.1.0.2"), Handle: "net.old", Node: "n1", Pod: "default/old"})
			v.Owed["net.old"] = true
		}, nil},
		{"block has it as another's", func(v *View) {
			v.Blocks[0].Given[1] = Given{Addr: addr("10.1.0.1"), Handle: "net.y", Node: "n2", Pod: "default/y"}
			v.Handles["net.y"] = map[string]int{"10.1.0.0/30": 1}
			delete(v.Handles["net.c1"], "10.1.0.0/30")
		}, []string{"block_differs 10.1.0.1 default/a"}},
		{"unsettled", func(v *View) {
			v.Blocks[1].Given, v.Pods[0].Unsettled, v.Owed["net.c1"] = nil, true, true
		}, nil},
		{"handle gone", func(v *View) { delete(v.Handles, "net.c1") }, []string{"no_handle 10.1.0.1 default/a", "no_handle fd00::1 default/a"}},
		{"handle of nothing", func(v *View) { v.Handles["net.gone"] = map[string]int{"10.1.0.0/30": 2, "10.9.0.0/30": 1} }, []string{"empty_handle  net.gone"}},
	} {
		v := good()
		c.do(v)
		var got []string
		for _, f := range Compare(v) {
			got = append(got, fmt.Sprint(f.Kind, " ", f.Address, " ", f.Owner))
			if f.What == "" || f.Do == "" || !slices.Contains(Kinds, f.Kind) {
				t.Errorf("%s: %+v", c.name, f)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestBothAndNew(t *testing.T) {
	a, b, c := api.IPAMFinding{Kind: "a"}, api.IPAMFinding{Kind: "b"}, api.IPAMFinding{Kind: "c"}
	first, second := []api.IPAMFinding{a, b}, []api.IPAMFinding{b, c}
	if got := Both(first, second); !slices.Equal(got, []api.IPAMFinding{b}) {
		t.Errorf("both: %v", got)
	}
	if got := New(first, second); !slices.Equal(got, []api.IPAMFinding{c}) {
		t.Errorf("new: %v", got)
	}
}
