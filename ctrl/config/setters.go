package config

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

func setUplinks(c *Config, v value) *mistake {
	items, m := v.list("write a list such as [eth0]")
	if m != nil {
		return m
	}
	names := make([]string, 0, len(items))
	for _, item := range items {
		s, m := item.str()
		if m != nil {
			return m
		}
		if what := deviceName(s); what != "" {
			return item.wrong(what)
		}
		for i, other := range names {
			if other == s {
				return item.wrong(fmt.Sprintf("%s is uplinks[%d] already; name every uplink once", s, i))
			}
		}
		names = append(names, s)
	}
	c.Uplinks = names
	return nil
}

func setClusterCIDRs(c *Config, v value) *mistake {
	cidrs, m := v.cidrs("clusterCIDRs", "10.244.0.0/16")
	if m == nil && len(cidrs) == 0 {
		m = v.wrong("is empty; write the prefixes that pods have addresses of")
	}
	if m == nil {
		c.Native.ClusterCIDRs = cidrs
	}
	return m
}

func setServiceCIDRs(c *Config, v value) *mistake {
	cidrs, m := v.cidrs("serviceCIDRs", "10.96.0.0/12")
	if m == nil {
		c.ServiceCIDRs = cidrs
	}
	return m
}

func setNATExclude(c *Config, v value) *mistake {
	cidrs, m := v.cidrs("nat.exclude", "192.168.0.0/16")
	if m == nil {
		c.NAT.Exclude = cidrs
	}
	return m
}

// setNATPorts reads a range such as 61000-65535.
func setNATPorts(c *Config, v value) *mistake {
	s, m := v.str()
	if m != nil {
		return m
	}
	from, to, ok := strings.Cut(s, "-")
	low, err := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
	high, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
	if !ok || err != nil || err2 != nil || low < 1024 || high < low {
		return v.wrong(fmt.Sprintf("%q is no range of ports from 1024 to 65535; write one such as 61000-65535", s))
	}
	c.NAT.Low, c.NAT.High = uint16(low), uint16(high)
	return nil
}

// cidrs reads the list of that name, of prefixes that do not overlap.
func (v value) cidrs(name, example string) ([]netip.Prefix, *mistake) {
	items, m := v.list("write a list such as [" + example + "]")
	if m != nil {
		return nil, m
	}
	cidrs := make([]netip.Prefix, 0, len(items))
	for _, item := range items {
		s, m := item.str()
		if m != nil {
			return nil, m
		}
		p, what := checkCIDR(s)
		if what != "" {
			return nil, item.wrong(what)
		}
		for i, other := range cidrs {
			if other.Overlaps(p) {
				return nil, item.wrong(fmt.Sprintf("%s overlaps %s, which is %s[%d]; keep one of them", p, other, name, i))
			}
		}
		cidrs = append(cidrs, p)
	}
	return cidrs, nil
}

func setVNI(c *Config, v value) *mistake {
	n, m := v.integer(1, 1<<24-1, "the same on every node")
	if m == nil {
		c.VXLAN.VNI = uint32(n)
	}
	return m
}

func setPort(c *Config, v value) *mistake {
	n, m := v.integer(1, 1<<16-1, "the same on every node")
	if m == nil {
		c.VXLAN.Port = uint16(n)
	}
	return m
}

// minMTU is what IPv6 asks of every link (RFC 8200 5).
const (
	minMTU = 1280
	maxMTU = 65535
)

func setMTU(c *Config, v value) *mistake {
	const hint = "or 0 for the smallest uplink MTU less the tunnel's overhead"
	n, m := v.integer(0, maxMTU, hint)
	if m == nil && n != 0 && n < minMTU {
		m = v.wrong(fmt.Sprintf("%d is out of range; write a number from %d to %d, %s", n, minMTU, maxMTU, hint))
	}
	if m == nil {
		c.MTU = n
	}
	return m
}

func setFrameSize(c *Config, v value) *mistake {
	n, m := v.integer(0, 1<<20, "2048 or 4096")
	if m == nil && n != 2048 && n != 4096 {
		m = v.wrong(fmt.Sprintf("%d is no size of an AF_XDP frame; write 2048 or 4096", n))
	}
	if m == nil {
		c.XDP.FrameSize = n
	}
	return m
}

func setRingSize(c *Config, v value) *mistake {
	n, m := v.integer(64, 32768, "a power of two")
	if m == nil && bits.OnesCount(uint(n)) != 1 {
		m = v.wrong(fmt.Sprintf("%d is no power of two; write %d or %d", n, 1<<(bits.Len(uint(n))-1), 1<<bits.Len(uint(n))))
	}
	if m == nil {
		c.XDP.RingSize = n
	}
	return m
}

// maxCooldown is longer than any connection to a pod that is gone is tried.
const maxCooldown = time.Hour

func setCooldown(c *Config, v value) *mistake {
	s, m := v.str()
	if m != nil {
		return m
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxCooldown {
		return v.wrong(fmt.Sprintf("%q is no time from 0s to 1h; write one such as 30s", s))
	}
	c.IPAM.Cooldown = d
	return nil
}
