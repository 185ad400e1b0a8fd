package pktgen

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"culvert/bench/load"
)

// maxFlows is how many flows differ by their source port alone.
const maxFlows = 1 << load.PortBits

// check says what of a load the module cannot send; its error names the field.
func check(c *load.Config) error {
	switch {
	case len(c.Outs) > 1:
		return fmt.Errorf("pktgen: Outs: %d: it has one source", len(c.Outs))
	case c.Tunnel != nil:
		return fmt.Errorf("pktgen: Tunnel: it knows no %s", c.Tunnel.Kind)
	case c.Zipf != 0:
		return fmt.Errorf("pktgen: Zipf: %g: it sends flows in turn", c.Zipf)
	case c.NewEvery != 0 || c.NewFlows != 0:
		return fmt.Errorf("pktgen: NewEvery: it sends the same flows again")
	case c.Flows > maxFlows:
		return fmt.Errorf("pktgen: Flows: %d: it tells them by their source port, %d at most", c.Flows, maxFlows)
	}
	for i, d := range c.Destinations[1:] {
		if d != c.Destinations[i].Next() {
			return fmt.Errorf("pktgen: Destinations[%d]: %s: it counts them up, and the one before is %s", i+1, d, c.Destinations[i])
		}
	}
	if c.Flows%len(c.Destinations) != 0 {
		return fmt.Errorf("pktgen: Flows: %d: it needs a multiple of the %d destinations", c.Flows, len(c.Destinations))
	}
	return nil
}

// commands are what a device's file is told.
func commands(c *load.Config) []string {
	out := c.Outs[0]
	ports := load.FirstPort // the last one
	if c.Flows > 1 {
		ports += c.Flows // not included
	}
	all := []string{
		fmt.Sprintf("count %d", c.MaxFrames),
		"clone_skb 0", // a veth's frames are not to be sent twice
		fmt.Sprintf("delay %d", delay(c.Rate)),
		"src_mac " + out.MAC.String(), "dst_mac " + c.NextHop.String(),
		"src_min " + out.Addr.String(), "src_max " + out.Addr.String(),
		"dst_min " + c.Destinations[0].String(), "dst_max " + last(c.Destinations).String(),
		fmt.Sprintf("udp_src_min %d", load.FirstPort),
		fmt.Sprintf("udp_src_max %d", ports),
		fmt.Sprintf("udp_dst_min %d", load.DestinationPort), fmt.Sprintf("udp_dst_max %d", load.DestinationPort),
		"flag UDPCSUM",
	}
	if len(c.Sizes) == 1 {
		return append(all, fmt.Sprintf("pkt_size %d", c.Sizes[0].Len))
	}
	var weights []string
	for _, s := range c.Sizes {
		weights = append(weights, fmt.Sprintf("%d,%d", s.Len, s.Weight))
	}
	largest := slices.MaxFunc(c.Sizes, func(a, b load.Size) int { return a.Len - b.Len })
	return append(all, fmt.Sprintf("pkt_size %d", largest.Len), "imix_weights "+strings.Join(weights, " "))
}

// delay is the time between frames in nanoseconds.
func delay(rate float64) uint64 {
	if rate == 0 {
		return 0
	}
	return uint64(1e9/rate + 0.5)
}

func last(all []netip.Addr) netip.Addr { return all[len(all)-1] }
