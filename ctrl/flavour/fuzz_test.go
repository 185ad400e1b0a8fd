package flavour

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/source"
)

// Whatever the objects say: what comes out can be programmed, and no prefix twice.
func FuzzObjects(f *testing.F) {
	f.Add("10.0.0.2", `{"VNI":1,"VtepMAC":"0a:00:00:00:00:02"}`, "10.42.2.0/24", `{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}`, "host:a", 3, "all()")
	f.Add("2001:db8::2", "null", "fd00::/64", `{"Network": "10.42.0.0/16", "IPv6Network": "fd00::/48", "EnableIPv6": true, "Backend": {"Type": "ipip"}}`, "virtual:x", -1, "zone in {'a'}")
	f.Add("10.0.0.1/33", "{", "10.244.2.0/32", "[]", "host:", 64, "!")
	f.Add("10.0.0.2/24", "{}", "0.0.0.0/0", "{}", "", 1<<30, "((")
	f.Fuzz(func(t *testing.T, ip, data, cidr, conf, host string, index int, selector string) {
		a := annotated(node("a", ip, cidr), fl+"kube-subnet-manager=true", fl+"backend-type=vxlan", fl+"public-ip="+ip, fl+"public-ipv6="+ip,
			fl+"backend-data="+data, fl+"backend-v6-data="+data, ca+"IPv4Address="+ip, ca+"IPv6Address="+ip, ca+"IPv4VXLANTunnelAddr="+ip,
			ca+"IPv6VXLANTunnelAddr="+ip, ca+"VXLANTunnelMACAddr="+data, ca+"IPv4IPIPTunnelAddr="+ip)
		b := calicoNode("b", "10.0.0.3/24", "10.244.3.0")
		block := ipamBlock("10.244.3.0/26 b 5=a/x 6=me/y 7=b")
		block.Spec.CIDR, block.Spec.Affinity, block.Spec.Allocations[9] = cidr, &host, &index
		objs := objects(calicoNode("me", "10.0.0.1/24", ""), a, b, pool("p", "10.0.0.0/8 vxlan=CrossSubnet"), pool("q", "fd00::/8 vxlan=Always"),
			ipamBlock("10.244.1.0/26 me 0=a/x"), ipamBlock("10.244.2.0/26 a 1=b/x 2=me/x"), block, affinity("10.244.4.0/26 a confirmed"))
		objs.IPPools[0].Spec.NodeSelector = selector
		objs.ConfigMaps = []*corev1.ConfigMap{configMap("kube-flannel", conf)}
		opt := Options{Node: "me", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}, Kept: map[string]string{fl + "backend-data": data, ca + "IPv4VXLANTunnelAddr": ip}}
		for _, mode := range []string{ModeFlannel, ModeCalico, ModeNative} {
			programmable(t, mode, objs, opt)
		}
	})
}

func programmable(t *testing.T, mode string, objs *source.Objects, opt Options) {
	t.Helper()
	opt.Encap = VXLAN
	d := Want(mode, objs, opt)
	keys, whose := map[string]bool{}, map[netip.Prefix]string{}
	for i := range d.Peers {
		p := &d.Peers[i]
		if keys[p.Key()] {
			t.Errorf("%s: two peers %s", mode, p.Key())
		}
		keys[p.Key()] = true
		if !p.PublicIP.IsValid() || p.Encap != VXLAN && p.Encap != IPIP && p.Encap != None || p.Encap == VXLAN && p.VTEPMAC.IsZero() || p.VTEPMAC[0]&1 != 0 {
			t.Errorf("%s: peer %+v", mode, p)
		}
		for _, c := range p.PodCIDRs {
			if c != c.Masked() || whose[c] != "" {
				t.Errorf("%s: %s of %s, and of %q", mode, c, p.Key(), whose[c])
			}
			whose[c] = p.Key()
		}
	}
	if l := d.Local; l != nil && l.TunnelIP.IsValid() && l.TunnelIP.IsMulticast() {
		t.Errorf("%s: tunnel address %s", mode, l.TunnelIP)
	}
	for _, c := range d.Conflicts {
		if c.What == "" || c.Key == "" || c.Object.Name == "" {
			t.Errorf("%s: conflict %+v", mode, c)
		}
	}
}
