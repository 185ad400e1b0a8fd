package config

import (
	"fmt"

	"culvert/encap"
)

// Errorf is an error about a key that was taken already: for what only the
// machine can tell, such as an uplink that does not exist. It begins with where
// the key was set.
func (c *Config) Errorf(key, format string, args ...any) error {
	where := c.where[key]
	if where == "" {
		where = c.place()
	}
	return &KeyError{fmt.Sprintf("%s: %s: %s", where, key, fmt.Sprintf(format, args...))}
}

// KeyError is a key whose value cannot be used.
type KeyError struct{ line string }

// Error is the one line that says where, which key, what and what to do.
func (e *KeyError) Error() string { return e.line }

// contradictions refuses keys that are fine alone and wrong together.
func (c *Config) contradictions() error {
	if c.XDP.ZeroCopy == "on" && c.XDP.Mode == "generic" {
		return c.Errorf("xdp.zeroCopy", "on needs the driver's own XDP, xdp.mode is generic; set zeroCopy to auto or mode to native")
	}
	if c.Native.Encap == "none" && c.Native.CrossSubnet {
		return c.Errorf("native.crossSubnet", "true says when to tunnel, native.encap none never does; set crossSubnet to false or encap to vxlan")
	}
	if c.Kubeconfig != "" && c.Source != SourceKube {
		return c.Errorf("kubeconfig", "%s says how to reach an API server, and source is %s; remove it, or set source to kube", c.Kubeconfig, c.Source)
	}
	return nil
}

// CheckUplinkMTU refuses a pod MTU that does not fit through an uplink. An
// uplink whose MTU is 0 is not there yet.
func (c *Config) CheckUplinkMTU(uplink string, mtu int) error {
	if c.MTU == 0 || mtu == 0 {
		return nil
	}
	if most := mtu - c.overhead(); c.MTU > most {
		return c.Errorf("mtu", "%d does not fit through uplink %s, whose MTU is %d; write at most %d, or 0", c.MTU, uplink, mtu, most)
	}
	return nil
}

// overhead is the least that the encapsulation adds to a packet, in bytes: in calico
// and flannel mode the cluster says which it is.
func (c *Config) overhead() int {
	switch {
	case c.Native.Encap == "none", c.Mode == "calico", c.Mode == "flannel":
		return 0
	case c.Native.Encap == "ipip":
		return encap.OverheadIPIP
	}
	return encap.OverheadVXLAN4
}

// ClusterCIDRsGiven reports whether somebody set native.clusterCIDRs: only then
// is a pod CIDR outside of them a mistake.
func (c *Config) ClusterCIDRsGiven() bool {
	return c.From("native.clusterCIDRs") != FromDefault
}
