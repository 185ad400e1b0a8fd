package flavour

import (
	"net/netip"
	"testing"
)

// TestReasons: each sort of conflict has its word, in every mode that knows it, and
// all of a node that is not concerned stays as it was.
func TestReasons(t *testing.T) {
	mine, a := calicoNode("me", "10.0.0.1/24", "10.244.1.0"), calicoNode("a", "10.0.0.2/24", "10.244.2.0")
	always, blockMe, blockA := pool("p", "10.244.0.0/16 vxlan=Always"), ipamBlock("10.244.1.0/26 me 0=me#vxlanTunnelAddress"), ipamBlock("10.244.2.0/26 a")
	calico := []any{mine, a, always, blockMe, blockA}
	native := []any{node("me", "10.0.0.1", "10.244.1.0/24"), node("a", "10.0.0.2", "10.244.2.0/24")}
	flannel := []any{node("me", "10.0.0.1", "10.244.1.0/24"), flanneld("a", "10.0.0.2", "10.244.2.0/24", "0a:00:00:00:00:02")}
	blockB := ipamBlock("10.244.3.0/26 b")
	for _, c := range []struct {
		mode  string
		sound []any
		more  []any
		want  Reason
	}{
		{ModeNative, native, []any{node("b", "10.0.0.3", "10.244.2.0/25")}, DuplicatePodCIDR},
		{ModeNative, native, []any{node("b", "10.0.0.2", "10.244.3.0/24")}, DuplicateAddress},
		{ModeNative, native, []any{node("b", "10.0.0.3", "10.244.3.0/24", "vtep-mac="+VTEPMAC("a").String())}, DuplicateVTEPMAC},
		{ModeNative, native, []any{node("b", "10.0.0.3", "10.99.3.0/24")}, OutsideClusterCIDR},
		{ModeNative, native, []any{node("b", "", "10.244.3.0/24")}, NotFollowed},
		{ModeFlannel, flannel, []any{flanneld("b", "10.0.0.3", "10.244.0.0/16", "0a:00:00:00:00:03")}, DuplicatePodCIDR},
		{ModeFlannel, flannel, []any{flanneld("b", "10.0.0.2", "10.244.3.0/24", "0a:00:00:00:00:03")}, DuplicateAddress},
		{ModeFlannel, flannel, []any{flanneld("b", "10.0.0.3", "10.244.3.0/24", "0a:00:00:00:00:02")}, DuplicateVTEPMAC},
		{ModeFlannel, flannel, []any{flanneld("b", "", "10.244.3.0/24", "0a:00:00:00:00:03")}, NotFollowed},
		{ModeCalico, calico, []any{calicoNode("b", "10.0.0.2/24", "10.244.3.0"), blockB}, DuplicateAddress},
		{ModeCalico, calico, []any{calicoNode("b", "10.0.0.3/24", "10.244.3.0", ca+"VXLANTunnelMACAddr="+VTEPMAC("a").String()), blockB}, DuplicateVTEPMAC},
		{ModeCalico, calico, []any{calicoNode("b", "10.0.0.3/24", "10.244.2.0"), blockB}, DuplicateTunnelAddress},
		{ModeCalico, calico, []any{named("zz", ipamBlock("10.244.2.0/26 me"))}, DuplicateBlock},
		{ModeCalico, calico, []any{ipamBlock("10.244.2.0/27 a")}, DuplicateBlock},
		{ModeCalico, calico, []any{affinity("10.244.2.0/26 me confirmed")}, DuplicateBlock},
		{ModeCalico, calico, []any{pool("q", "10.244.2.0/24")}, OverlappingPool},
		{ModeCalico, calico, []any{ipamBlock("10.99.0.0/26 a")}, OutsidePool},
		{ModeCalico, calico, []any{pool("q", "10.99.0.0/16 vxlan=Sometimes")}, NotFollowed},
	} {
		opt := Options{Node: "me", Encap: VXLAN, ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
		before := Want(c.mode, objects(c.sound...), opt)
		if len(before.Conflicts) > 0 {
			t.Fatalf("%s: %v", c.mode, before.Conflicts)
		}
		after := Want(c.mode, objects(append(append([]any{}, c.sound...), c.more...)...), opt)
		if len(after.Conflicts) != 1 || after.Conflicts[0].Reason != c.want {
			t.Errorf("%s %s: %v", c.mode, c.want, after.Conflicts)
			for _, f := range after.Conflicts {
				t.Logf("%q", f.Reason)
			}
			continue
		}
		was, is := brief(before), brief(after)
		for i, line := range was { // the local node and Node a
			if line != is[i] {
				t.Errorf("%s %s: was %s, is %s", c.mode, c.want, line, is[i])
			}
		}
	}
}
