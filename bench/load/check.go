package load

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"
)

const (
	maxDraws = 1 << 20
	maxEnds  = 1 << 16 // outs, and destinations
	maxRate  = 1e8
	maxTime  = time.Hour
	maxZipf  = 8
)

// Check says what is wrong with the configuration; its error names the field.
func (c *Config) Check() error {
	for _, check := range []func() error{c.checkEnds, c.checkTunnel, c.checkSizes, c.checkFlows, c.checkBounds} {
		if err := check(); err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	return nil
}

// wrong is an error that begins with the name of a field, as that is spelled.
func wrong(format string, args ...any) error { return fmt.Errorf(format, args...) }

func (c *Config) checkEnds() error {
	if n := len(c.Outs); n < 1 || n > maxEnds {
		return wrong("Outs: there are %d, must be 1 to %d", n, maxEnds)
	}
	if n := len(c.Destinations); n < 1 || n > maxEnds {
		return wrong("Destinations: there are %d, must be 1 to %d", n, maxEnds)
	}
	framed := c.Tunnel == nil || c.Tunnel.Kind != IPIP // with MACs of its own
	for i, o := range c.Outs {
		switch {
		case o.Device <= 0:
			return wrong("Outs[%d].Device: index %d: must be positive", i, o.Device)
		case framed && len(o.MAC) != 6:
			return wrong("Outs[%d].MAC: %q is not an Ethernet address", i, o.MAC)
		case !o.Addr.Is4():
			return wrong("Outs[%d].Addr: %s is not an IPv4 address", i, o.Addr)
		case c.Tunnel != nil && !o.Peer.Is4():
			return wrong("Outs[%d].Peer: %s is not an IPv4 address, which a tunnel needs", i, o.Peer)
		case c.Tunnel == nil && o.Peer.IsValid():
			return wrong("Outs[%d].Peer: %s, but there is no Tunnel", i, o.Peer)
		}
	}
	for i, d := range c.Destinations {
		if !d.Is4() {
			return wrong("Destinations[%d]: %s is not an IPv4 address", i, d)
		}
	}
	if framed {
		return checkMAC("NextHop", c.NextHop)
	}
	return nil
}

func (c *Config) checkTunnel() error {
	t := c.Tunnel
	if t == nil {
		return nil
	}
	switch {
	case t.Kind != VXLAN && t.Kind != IPIP:
		return wrong("Tunnel.Kind: %q: must be %s or %s", t.Kind, VXLAN, IPIP)
	case t.Dst == (netip.Addr{}) || !t.Dst.Is4():
		return wrong("Tunnel.Dst: %s is not an IPv4 address", t.Dst)
	case t.Kind == VXLAN && t.Port == 0:
		return wrong("Tunnel.Port: VXLAN needs one")
	case t.VNI >= 1<<24:
		return wrong("Tunnel.VNI: %d has more than 24 bits", t.VNI)
	}
	return errors.Join(checkMAC("Tunnel.SrcMAC", t.SrcMAC), checkMAC("Tunnel.DstMAC", t.DstMAC))
}

func checkMAC(field string, mac net.HardwareAddr) error {
	if len(mac) != 6 {
		return wrong("%s: %q is not an Ethernet address", field, mac)
	}
	return nil
}

func (c *Config) checkSizes() error {
	if len(c.Sizes) == 0 {
		return wrong("Sizes: there is none")
	}
	sum := 0
	for i, s := range c.Sizes {
		if s.Len < MinFrame || s.Len > MaxFrame {
			return wrong("Sizes[%d].Len: %d: must be %d to %d", i, s.Len, MinFrame, MaxFrame)
		}
		if s.Weight < 1 || s.Weight > MaxWeight {
			return wrong("Sizes[%d].Weight: %d: must be 1 to %d", i, s.Weight, MaxWeight)
		}
		sum += s.Weight
	}
	if sum > MaxWeight {
		return wrong("Sizes: weights of %d together: must be %d at most", sum, MaxWeight)
	}
	return nil
}

func (c *Config) checkFlows() error {
	switch {
	case c.Flows < 1 || c.Flows > MaxFlows:
		return wrong("Flows: %d: must be 1 to %d", c.Flows, MaxFlows)
	case !(c.Zipf >= 0 && c.Zipf <= maxZipf): // not a number is neither
		return wrong("Zipf: %g: must be 0 to %d", c.Zipf, maxZipf)
	case c.Draws < 0 || c.Draws > maxDraws:
		return wrong("Draws: %d: must be 0 to %d", c.Draws, maxDraws)
	case c.NewEvery < 0 || c.NewEvery > math.MaxInt32:
		return wrong("NewEvery: %d: must be 0 to %d", c.NewEvery, math.MaxInt32)
	case !(c.NewFlows >= 0):
		return wrong("NewFlows: %g a second: must not be negative", c.NewFlows)
	case c.NewFlows > 0 && c.NewEvery > 0:
		return wrong("NewFlows: NewEvery says the same, one of them must be 0")
	case c.NewFlows > 0 && c.Rate == 0:
		return wrong("NewFlows: needs a Rate; without, NewEvery says it")
	case c.NewFlows > c.Rate:
		return wrong("NewFlows: %g a second of %g frames a second", c.NewFlows, c.Rate)
	}
	return nil
}

func (c *Config) checkBounds() error {
	switch {
	case c.Rate != 0 && !(c.Rate >= 1 && c.Rate <= maxRate):
		return wrong("Rate: %g: must be 0, or 1 to %g frames a second", c.Rate, maxRate)
	case c.MaxFrames == 0:
		return wrong("MaxFrames: a generator needs a bound")
	case c.MaxTime <= 0 || c.MaxTime > maxTime:
		return wrong("MaxTime: %s: must be more than 0 and at most %s", c.MaxTime, maxTime)
	case c.CPU < -1:
		return wrong("CPU: %d: must be a processor, or -1", c.CPU)
	case c.Enter == nil:
		return wrong("Enter: no way into a network namespace: refusing to send into the caller's")
	}
	return nil
}

// newEvery is NewEvery, or what follows from NewFlows.
func (c *Config) newEvery() uint32 {
	if c.NewFlows > 0 {
		return uint32(min(max(math.Round(c.Rate/c.NewFlows), 1), math.MaxInt32))
	}
	return uint32(c.NewEvery)
}
