package testbed

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Wire is what may cross the uplink.
type Wire string

// The wires.
const (
	// AnyWire is a veth as the kernel makes it: frames of up to 64 KB cross whole
	// and without checksums.
	AnyWire Wire = ""
	// MTUWire takes frames of the MTU, as a NIC's cable does: whoever has a longer
	// one cuts it before.
	MTUWire Wire = "mtu"
)

// cutters are the offloads that let a frame cross that is longer than the MTU.
// Without them the kernel cuts before the wire, and a veth drops what is still
// too long. Checksum offload and scatter-gather stay: NICs have them.
var cutters = []string{"tso", "gso", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation",
	"tx-udp-segmentation", "tx-gso-list", "tx-gre-segmentation", "tx-gre-csum-segmentation",
	"tx-ipxip4-segmentation", "tx-ipxip6-segmentation", "tx-sctp-segmentation"}

// CutFrames takes those offloads, and GRO unless it is wanted, from one end of a
// wire. It does the same at the other end that makes the wire MTU-sized.
func (s *Space) CutFrames(ctx context.Context, device string, gro bool) error {
	args := []string{"-K", device, "gro", "off"}
	if gro {
		args[3] = "on"
	}
	for _, feature := range cutters {
		args = append(args, feature, "off")
	}
	if _, err := s.Run(ctx, exec.CommandContext(ctx, "ethtool", args...)); err != nil {
		return err
	}
	out, err := s.Run(ctx, exec.CommandContext(ctx, "ethtool", "-k", device))
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if strings.Contains(name, "segmentation") && strings.HasPrefix(value, "on") {
			return fmt.Errorf("%s of %s is still on", name, device)
		}
	}
	return nil
}
