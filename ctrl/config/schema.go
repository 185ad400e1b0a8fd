package config

import "fmt"

// key is one leaf of the configuration.
type key struct {
	name string // dotted
	set  func(*Config, value) *mistake
	get  func(*Config) any
}

// schema is every key, in the order of the documentation. What is not in it is
// an unknown key.
var schema = []key{
	{"node", text(func(c *Config) *string { return &c.Node }, nodeName), func(c *Config) any { return c.Node }},
	{"source", text(func(c *Config) *string { return &c.Source }, source), func(c *Config) any { return c.Source }},
	{"kubeconfig", text(func(c *Config) *string { return &c.Kubeconfig }, anyText), func(c *Config) any { return c.Kubeconfig }},
	{"mode", text(func(c *Config) *string { return &c.Mode }, oneOf("auto", "native", "calico", "flannel")), func(c *Config) any { return c.Mode }},
	{"uplinks", setUplinks, func(c *Config) any { return c.Uplinks }},
	{"native.encap", text(func(c *Config) *string { return &c.Native.Encap }, oneOf("vxlan", "ipip", "none")), func(c *Config) any { return c.Native.Encap }},
	{"native.crossSubnet", boolean(func(c *Config) *bool { return &c.Native.CrossSubnet }), func(c *Config) any { return c.Native.CrossSubnet }},
	{"native.clusterCIDRs", setClusterCIDRs, func(c *Config) any { return c.Native.ClusterCIDRs }},
	{"vxlan.vni", setVNI, func(c *Config) any { return c.VXLAN.VNI }},
	{"vxlan.port", setPort, func(c *Config) any { return c.VXLAN.Port }},
	{"serviceCIDRs", setServiceCIDRs, func(c *Config) any { return c.ServiceCIDRs }},
	{"nat.outgoing", text(func(c *Config) *string { return &c.NAT.Outgoing }, oneOf("auto", "off")), func(c *Config) any { return c.NAT.Outgoing }},
	{"nat.ports", setNATPorts, func(c *Config) any { return fmt.Sprintf("%d-%d", c.NAT.Low, c.NAT.High) }},
	{"nat.exclude", setNATExclude, func(c *Config) any { return c.NAT.Exclude }},
	{"mtu", setMTU, func(c *Config) any { return c.MTU }},
	{"mssClamp", boolean(func(c *Config) *bool { return &c.MSSClamp }), func(c *Config) any { return c.MSSClamp }},
	{"workers", number(func(c *Config) *int { return &c.Workers }, 0, maxWorkers, "0 stands for one per uplink queue"), func(c *Config) any { return c.Workers }},
	{"poll", text(func(c *Config) *string { return &c.Poll }, oneOf("busy", "adaptive", "interrupt")), func(c *Config) any { return c.Poll }},
	{"xdp.mode", text(func(c *Config) *string { return &c.XDP.Mode }, oneOf("auto", "native", "generic")), func(c *Config) any { return c.XDP.Mode }},
	{"xdp.zeroCopy", text(func(c *Config) *string { return &c.XDP.ZeroCopy }, oneOf("auto", "on", "off")), func(c *Config) any { return c.XDP.ZeroCopy }},
	{"xdp.frameSize", setFrameSize, func(c *Config) any { return c.XDP.FrameSize }},
	{"xdp.ringSize", setRingSize, func(c *Config) any { return c.XDP.RingSize }},
	{"flows.capacity", number(func(c *Config) *int { return &c.Flows.Capacity }, minFlows, maxFlows, "262144 suits most nodes"), func(c *Config) any { return c.Flows.Capacity }},
	{"ipam.cooldown", setCooldown, func(c *Config) any { return c.IPAM.Cooldown.String() }},
	{"socket", text(func(c *Config) *string { return &c.Socket }, socketPath), func(c *Config) any { return c.Socket }},
	{"stateDir", text(func(c *Config) *string { return &c.StateDir }, absolutePath), func(c *Config) any { return c.StateDir }},
	{"listen", text(func(c *Config) *string { return &c.Listen }, hostPort), func(c *Config) any { return c.Listen }},
	{"cni.confDir", text(func(c *Config) *string { return &c.CNI.ConfDir }, noneOr(absolutePath)), func(c *Config) any { return c.CNI.ConfDir }},
	{"cni.conf", text(func(c *Config) *string { return &c.CNI.Conf }, absolutePath), func(c *Config) any { return c.CNI.Conf }},
}

const (
	maxWorkers = 256
	minFlows   = 64
	maxFlows   = 1 << 26
)

// keyNamed finds a key.
func keyNamed(name string) (key, bool) {
	for _, k := range schema {
		if k.name == name {
			return k, true
		}
	}
	return key{}, false
}

// text makes the setter of a text key that check approves of. check returns
// what is wrong and what to do, or nothing.
func text(field func(*Config) *string, check func(string) string) func(*Config, value) *mistake {
	return func(c *Config, v value) *mistake {
		s, m := v.str()
		if m != nil {
			return m
		}
		if what := check(s); what != "" {
			return v.wrong(what)
		}
		*field(c) = s
		return nil
	}
}

// number makes the setter of a whole number from low to high.
func number(field func(*Config) *int, low, high int, hint string) func(*Config, value) *mistake {
	return func(c *Config, v value) *mistake {
		n, m := v.integer(low, high, hint)
		if m == nil {
			*field(c) = n
		}
		return m
	}
}

// boolean makes the setter of a key that is true or false.
func boolean(field func(*Config) *bool) func(*Config, value) *mistake {
	return func(c *Config, v value) *mistake {
		b, m := v.boolean()
		if m == nil {
			*field(c) = b
		}
		return m
	}
}
