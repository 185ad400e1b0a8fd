package source

import (
	"fmt"
	"net"
	"net/netip"

	"culvert/ctrl/config/yamlfile"
)

// finding is a value that cannot be meant.
type finding struct {
	at   []any // keys (string) and indexes (int) from the object down
	what string
}

func found(what string, at ...any) *finding { return &finding{at, what} }

// lineOf is the line of what is at a path below n, or of the deepest part of
// the path that is there.
func lineOf(n *yamlfile.Node, at []any) int {
	line := n.Line
	for _, step := range at {
		switch step := step.(type) {
		case string:
			n = n.Field(step)
		case int:
			if step >= len(n.Items) {
				return line
			}
			n = n.Items[step]
		}
		if n == nil {
			return line
		}
		line = n.Line
	}
	return line
}

// keyOf writes a path as it stands behind prefix.
func keyOf(prefix string, at []any) string {
	path := prefix
	for _, step := range at {
		switch step := step.(type) {
		case string:
			path = yamlfile.Join(path, step)
		case int:
			path = yamlfile.Index(path, step)
		}
	}
	return path[len(prefix):]
}

// ParseCIDR reads a prefix that pods have addresses of; what says what is wrong
// and what to do.
func ParseCIDR(s string) (p netip.Prefix, what string) {
	p, err := netip.ParsePrefix(s)
	a := p.Addr()
	switch {
	case err != nil:
		return p, fmt.Sprintf("%q is no CIDR; write ADDRESS/LENGTH such as 10.244.1.0/24", s)
	case a.Is4In6():
		return p, fmt.Sprintf("%s is an IPv4 prefix in IPv6 clothes; write it as IPv4", s)
	case p != p.Masked():
		return p, fmt.Sprintf("%s has bits set behind its length; write %s", s, p.Masked())
	case p.Bits() == 0 || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified():
		return p, fmt.Sprintf("%s is no prefix for pods; write a unicast prefix", s)
	}
	return p, ""
}

// ParseAddr reads an address that a node or pod can have.
func ParseAddr(s string) (a netip.Addr, what string) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return a, fmt.Sprintf("%q is no IP address; write one such as 192.0.2.10", s)
	case a.Is4In6():
		return a, fmt.Sprintf("%s is an IPv4 address in IPv6 clothes; write it as IPv4", s)
	case a.Zone() != "":
		return a, fmt.Sprintf("%s has a zone; write the address alone", s)
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return a, fmt.Sprintf("%s reaches no node; write a unicast address", s)
	}
	return a, ""
}

// ParseMAC reads the address of a tunnel endpoint.
func ParseMAC(s string) (mac net.HardwareAddr, what string) {
	mac, err := net.ParseMAC(s)
	switch {
	case err != nil || len(mac) != 6:
		return nil, fmt.Sprintf("%q is no MAC address; write six bytes such as 66:b3:68:28:39:8e", s)
	case mac[0]&1 != 0:
		return nil, fmt.Sprintf("%s is a group address; write a unicast address", s)
	case mac.String() == "00:00:00:00:00:00":
		return nil, fmt.Sprintf("%s is no address; write a unicast address", s)
	}
	return mac, ""
}
