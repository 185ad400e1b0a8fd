package flavour

import (
	"encoding/json"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/source"
)

// flannelNet is what net-conf.json says of the whole cluster.
type flannelNet struct {
	v4, v6  netip.Prefix // the networks; invalid where nothing says
	no4     bool
	no6     bool
	backend string // as annotations write it
	encap   string
	vni     uint32
	port    uint16
	mtu     int // the pods'
	direct  bool
}

func (c *flannelNet) has(v6 bool) bool {
	if v6 {
		return !c.no6
	}
	return !c.no4
}

func (c *flannelNet) network(v6 bool) netip.Prefix {
	if v6 {
		return c.v6
	}
	return c.v4
}

// Flannel's defaults on Linux (pkg/backend/vxlan/vxlan.go; the port is the kernel's).
const (
	flannelVNI  = 1
	flannelPort = 8472
)

// flannelBackends are those that Culvert speaks, and what they are here.
var flannelBackends = map[string]string{"vxlan": VXLAN, "host-gw": None, "ipip": IPIP}

// netConf is net-conf.json (pkg/subnet/config.go). JSON keys are matched whatever
// their case, as flannel does it.
type netConf struct {
	Network, IPv6Network string
	EnableIPv4           *bool
	EnableIPv6           bool
	Backend              struct {
		Type               string
		VNI, Port, MTU     int
		GBP, DirectRouting bool
	}
}

// readNet reads the ConfigMap. Without one, as under k3s, flannel's defaults are
// taken. One that cannot be carried out refuses the whole state.
func (f *flannel) readNet() flannelNet {
	out := flannelNet{backend: "vxlan", encap: VXLAN, vni: flannelVNI, port: flannelPort}
	m := flannelConfigMap(f.objs)
	if m == nil {
		return out
	}
	ref := source.Ref{Kind: "ConfigMap", Namespace: m.Namespace, Name: m.Name}
	refuse := func(format string, args ...any) flannelNet {
		f.Refused = true
		f.conflict(ref, `data["net-conf.json"]`, format, args...)
		return out
	}
	text, ok := m.Data["net-conf.json"]
	if !ok {
		return refuse("is missing, so nothing is known of the network; write what flanneld is to read")
	}
	var c netConf
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return refuse("is no JSON that flanneld would read: %v", err)
	}
	if c.Backend.Type == "" {
		c.Backend.Type = "udp" // flannel's default in this place
	}
	encap, ok := flannelBackends[c.Backend.Type]
	if !ok {
		return refuse("Backend.Type %s is nothing that Culvert speaks; it joins networks of vxlan, host-gw and ipip", c.Backend.Type)
	}
	out.backend, out.encap, out.direct = c.Backend.Type, encap, c.Backend.DirectRouting
	b := &c.Backend
	switch {
	case b.VNI < 0 || b.VNI >= 1<<24:
		return refuse("Backend.VNI %d is out of range; write a number from 1 to 16777215", b.VNI)
	case b.Port < 0 || b.Port > 65535:
		return refuse("Backend.Port %d is out of range; write a number from 1 to 65535", b.Port)
	case b.MTU != 0 && (b.MTU < 626 || b.MTU > 65535):
		return refuse("Backend.MTU %d is out of range; write that of the nodes' NICs, 626 to 65535", b.MTU)
	}
	if b.VNI != 0 {
		out.vni = uint32(b.VNI)
	}
	if b.Port != 0 {
		out.port = uint16(b.Port)
	}
	if b.MTU != 0 { // the underlay's, see pkg/backend/vxlan/vxlan.go
		out.mtu = b.MTU - map[string]int{VXLAN: 50, IPIP: 20}[encap]
	}
	if b.GBP {
		f.conflict(ref, `data["net-conf.json"]`, "Backend.GBP true is not carried: packets' group policies get lost")
	}
	out.no4, out.no6 = c.EnableIPv4 != nil && !*c.EnableIPv4, !c.EnableIPv6
	for _, n := range []struct {
		key, text string
		off       bool
		to        *netip.Prefix
	}{{"Network", c.Network, out.no4, &out.v4}, {"IPv6Network", c.IPv6Network, out.no6, &out.v6}} {
		if n.off {
			continue
		}
		p, what := source.ParseCIDR(n.text)
		if what == "" && p.Addr().Is6() != (n.to == &out.v6) {
			what = fmt.Sprintf("%s is of the other family", p)
		}
		if what != "" {
			return refuse("%s: %s", n.key, what)
		}
		*n.to = p
	}
	return out
}

// flannelConfigMap is flannel's, where its manifests of today put it before where
// those of once did.
func flannelConfigMap(objs *source.Objects) (found *corev1.ConfigMap) {
	for _, m := range objs.ConfigMaps {
		if m.Name == "kube-flannel-cfg" && (found == nil || m.Namespace == "kube-flannel") {
			found = m
		}
	}
	return found
}
