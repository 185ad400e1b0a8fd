package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func anyText(string) string { return "" }

// oneOf accepts the words of an enumeration.
func oneOf(words ...string) func(string) string {
	last := len(words) - 1
	want := strings.Join(words[:last], ", ") + " or " + words[last]
	return func(s string) string {
		if slices.Contains(words, s) {
			return ""
		}
		return fmt.Sprintf("unknown value %q; write %s", s, want)
	}
}

// subdomain is RFC 1123's, as Kubernetes requires it of node names.
var subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func nodeName(s string) string {
	if len(s) <= 253 && subdomain.MatchString(s) {
		return ""
	}
	return fmt.Sprintf("%q is no Kubernetes node name; write the name that kubectl get nodes shows", s)
}

func source(s string) string {
	if s == "kube" || (strings.HasPrefix(s, dirScheme) && len(s) > len(dirScheme)) {
		return ""
	}
	return fmt.Sprintf("unknown source %q; write dir:PATH or kube", s)
}

// noneOr accepts an empty text too.
func noneOr(check func(string) string) func(string) string {
	return func(s string) string {
		if s == "" {
			return ""
		}
		return check(s)
	}
}

func absolutePath(s string) string {
	if filepath.IsAbs(s) {
		return ""
	}
	return fmt.Sprintf("%q is no absolute path; begin it with /", s)
}

// maxSocketPath is sizeof(sockaddr_un.sun_path) less the closing zero, and less
// the ~ of the name under which the agent binds the socket before it shows it.
const maxSocketPath = 106

func socketPath(s string) string {
	if len(s) > maxSocketPath {
		return fmt.Sprintf("has %d bytes, a unix socket's path at most %d; choose a shorter path", len(s), maxSocketPath)
	}
	return absolutePath(s)
}

func hostPort(s string) string {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Sprintf("%q is no address to listen on; write HOST:PORT such as 127.0.0.1:9476", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Sprintf("port %q is out of range; write a number from 0 to 65535", port)
	}
	if host != "" && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Sprintf("host %q is no IP address; write one of this node's addresses, or nothing for all", host)
		}
	}
	return ""
}

// deviceName applies dev_valid_name of net/core/dev.c.
func deviceName(s string) string {
	switch {
	case s == "":
		return "an empty name; write a device name such as eth0"
	case len(s) > 15:
		return fmt.Sprintf("%q has %d bytes, a device name at most 15; write the name that ip link shows", s, len(s))
	case s == "." || s == ".." || strings.ContainsAny(s, "/: \t\r\n\v\f"):
		return fmt.Sprintf("%q is no device name; write the name that ip link shows", s)
	case s == "lo":
		return "the loopback device reaches no other node; name a NIC"
	}
	return ""
}

// checkCIDR parses a prefix that pods can have addresses of.
func checkCIDR(s string) (netip.Prefix, string) {
	p, err := netip.ParsePrefix(s)
	a := p.Addr()
	switch {
	case err != nil:
		return p, fmt.Sprintf("%q is no CIDR; write ADDRESS/LENGTH such as 10.244.0.0/16", s)
	case a.Is4In6():
		return p, fmt.Sprintf("%s is an IPv4 prefix in IPv6 clothes; write it as IPv4", s)
	case p != p.Masked():
		return p, fmt.Sprintf("%s has bits set behind its length; write %s", s, p.Masked())
	case p.Bits() == 0:
		return p, fmt.Sprintf("%s is every address there is; write the prefix that pods have addresses of", s)
	case a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified():
		return p, fmt.Sprintf("%s is reserved; write a unicast prefix", s)
	}
	return p, ""
}
