package xsk

import (
	"encoding/binary"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// features are what a driver says of itself. With known false, the kernel has
// no way to tell (before 6.3) and the only way to find out is to try.
type features struct {
	known            bool
	native           bool // XDP in the driver, with redirects
	zeroCopy         bool
	zeroCopySegments uint32 // chunks in one zero-copy frame
	txChecksum       bool   // the driver completes checksums by transmit metadata
}

// Of include/uapi/linux/netdev.h.
const (
	netdevCmdDevGet         = 1
	netdevAttrIfindex       = 1
	netdevAttrXDPFeatures   = 3
	netdevAttrZCMaxSegments = 4
	netdevAttrXSKFeatures   = 6
	xdpActBasic             = 1
	xdpActXSKZeroCopy       = 8
	xskFlagTxChecksum       = 2
)

// genlHeader is struct genlmsghdr: command, version, reserved. nl.Genlmsg lacks
// the reserved bytes, sends whatever lies behind it in memory, and the kernel
// refuses that at random (net/netlink/genetlink.c, genl_header_check).
type genlHeader [4]byte

func (genlHeader) Len() int            { return len(genlHeader{}) }
func (h genlHeader) Serialize() []byte { return h[:] }

// queryFeatures asks the netdev netlink family about a device in the network
// namespace of the calling thread.
func queryFeatures(ifindex int) features {
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return features{}
	}
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	req.AddData(genlHeader{netdevCmdDevGet, 1})
	req.AddData(nl.NewRtAttr(netdevAttrIfindex, nl.Uint32Attr(uint32(ifindex))))
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil || len(msgs) == 0 || len(msgs[0]) < len(genlHeader{}) {
		return features{}
	}
	attrs, err := nl.ParseRouteAttr(msgs[0][len(genlHeader{}):])
	if err != nil {
		return features{}
	}
	f := features{known: true}
	for _, a := range attrs {
		if len(a.Value) < 4 {
			continue
		}
		value := binary.NativeEndian.Uint32(a.Value)
		switch a.Attr.Type {
		case netdevAttrXDPFeatures:
			f.native, f.zeroCopy = value&xdpActBasic != 0, value&xdpActXSKZeroCopy != 0
		case netdevAttrZCMaxSegments:
			f.zeroCopySegments = value
		case netdevAttrXSKFeatures:
			f.txChecksum = value&xskFlagTxChecksum != 0
		}
	}
	return f
}

// DriverXDP is what a driver says of its own XDP, of a device in the network namespace of
// the calling thread. It is not known before Linux 6.3.
func DriverXDP(ifindex int) (native, zeroCopy, known bool) {
	f := queryFeatures(ifindex)
	return f.native, f.zeroCopy, f.known
}
