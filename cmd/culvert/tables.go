package main

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
)

// lister makes a command that asks path and prints the array it gets.
func lister[T any](a *app, use, short, path string, table func(io.Writer, []T)) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(a, cmd, path, table)
		},
	}
}

func (a *app) portCommand() *cobra.Command {
	return lister(a, "port", "Ports: uplinks, pods and the host, with their counters", "/v1/ports", printPorts)
}

func printPorts(w io.Writer, ports []api.Port) {
	rows := make([][]string, len(ports))
	for i, p := range ports {
		rows[i] = []string{p.Name, p.Kind, strconv.Itoa(p.Queues), p.XDP.Mode, yesNo(p.XDP.ZeroCopy),
			count(p.Rx.Packets), count(p.Rx.Bytes), count(p.Tx.Packets), count(p.Tx.Bytes), count(p.Drops)}
	}
	columns(w, "NAME KIND QUEUES XDP ZEROCOPY RX-PACKETS RX-BYTES TX-PACKETS TX-BYTES DROPS", rows)
}

func (a *app) routeCommand() *cobra.Command {
	all := false
	c := &cobra.Command{
		Use:   "route",
		Short: "The forwarding table, as 'ip route' prints one",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				return show(a, cmd, "/v1/routes?all", printRoutes)
			}
			return show(a, cmd, "/v1/routes", printRoutes)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "also the routes to other nodes themselves, to Services, and out of the cluster")
	c.AddCommand(&cobra.Command{
		Use:   "get ADDRESS",
		Short: "The route that a packet to ADDRESS takes",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := netip.ParseAddr(args[0]); err != nil {
				return &usageError{fmt.Errorf("%q is no IP address", args[0])}
			}
			return show(a, cmd, "/v1/route?address="+url.QueryEscape(args[0]), func(w io.Writer, r api.Route) {
				printRoutes(w, []api.Route{r})
			})
		},
	})
	return c
}

// routeTypes are the words that 'ip route' puts in front of the prefix.
var routeTypes = map[string]string{"local": "local", "blackhole": "blackhole", "reject": "unreachable"}

func printRoutes(w io.Writer, routes []api.Route) {
	for _, r := range routes {
		encap, scope, unresolved := "", "", ""
		switch r.Kind {
		case "vxlan":
			encap = line("encap vxlan id", strconv.Itoa(int(r.VNI)), pair("lladdr", r.MAC))
		case "ipip":
			encap = "encap ipip"
		case "pod":
			scope = line(pair("lladdr", r.MAC), "scope link")
		}
		dev := r.Dev
		if len(r.NextHops) > 0 {
			dev = ""
		} else if r.Unresolved {
			unresolved = "unresolved"
		}
		fmt.Fprintln(w, line(routeTypes[r.Kind], shortPrefix(r.Dst), pair("via", r.Via), pair("dev", dev),
			encap, scope, pair("proto", r.Protocol), pair("mtu", nonZero(r.MTU)), unresolved))
		printNextHops(w, r.NextHops)
	}
}

// printNextHops writes the ways of a multipath route as 'ip route' does: a line
// each, indented by a tab.
func printNextHops(w io.Writer, ways []api.NextHop) {
	for _, n := range ways {
		via, unresolved := n.Gateway, ""
		if via == "" {
			via = n.Via
		}
		if n.Unresolved {
			unresolved = "unresolved"
		}
		fmt.Fprintln(w, "\t"+line("nexthop", pair("via", via), pair("dev", n.Dev), pair("weight", strconv.Itoa(n.Weight)),
			pair("buckets", strconv.Itoa(n.Buckets)), unresolved))
	}
}

// shortPrefix writes a prefix as iproute2 does: default, and hosts without
// their length.
func shortPrefix(s string) string {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return s
	case p.Bits() == 0:
		return "default"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return s
}

func (a *app) fdbCommand() *cobra.Command {
	return lister(a, "fdb", "Remote VTEPs, as 'bridge fdb show' prints them", "/v1/fdb", printFDB)
}

func printFDB(w io.Writer, entries []api.FDBEntry) {
	for _, e := range entries {
		fmt.Fprintln(w, line(e.MAC, pair("dst", e.Dst), strings.Join(e.Flags, " ")))
	}
}

func (a *app) neighCommand() *cobra.Command {
	return lister(a, "neigh", "Neighbours, as 'ip neigh' prints them", "/v1/neighbours", printNeighbours)
}

func printNeighbours(w io.Writer, neighbours []api.Neighbour) {
	for _, n := range neighbours {
		fmt.Fprintln(w, line(n.Dst, pair("dev", n.Dev), pair("lladdr", n.LLAddr), strings.Join(n.State, " ")))
	}
}

func (a *app) peerCommand() *cobra.Command {
	return lister(a, "peer", "The other nodes and how they are reached", "/v1/peers", printPeers)
}

func printPeers(w io.Writer, peers []api.Peer) {
	rows := make([][]string, len(peers))
	for i, p := range peers {
		rows[i] = []string{p.Name, p.Dst, p.Encap, p.MAC, strings.Join(p.PodCIDRs, ","), p.Via, p.Dev, mtuOf(&p), p.State}
	}
	columns(w, "NAME DST ENCAP MAC PODCIDRS VIA DEV MTU STATE", rows)
}

// mtuOf is a peer's MTU, and until when, in seconds, if its path has made it smaller.
func mtuOf(p *api.Peer) string {
	if p.MTU == 0 {
		return ""
	}
	if p.PMTU == 0 {
		return strconv.Itoa(p.MTU)
	}
	return fmt.Sprintf("%d(%ds)", p.MTU, p.Expires)
}

func (a *app) podCommand() *cobra.Command {
	return lister(a, "pod", "The pods of this node", "/v1/pods", printPods)
}

func printPods(w io.Writer, pods []api.Pod) {
	rows := make([][]string, len(pods))
	for i, p := range pods {
		container := p.ContainerID
		if len(container) > 12 {
			container = container[:12]
		}
		rows[i] = []string{p.Namespace, p.Name, strings.Join(p.Addrs, ","), p.MAC, p.Port, p.IfName, container, p.State}
	}
	columns(w, "NAMESPACE NAME ADDRESS MAC PORT IFNAME CONTAINER STATE", rows)
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
