package psock

import (
	"bytes"
	"fmt"
	"sync"

	"culvert/dataplane/frame"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// limitsOf says which big frames a device of the calling thread's network namespace
// takes whole. Others are lost: a packet socket that bypasses the queueing
// discipline sends no frame that the kernel has to cut first (net/core/dev.c,
// __dev_direct_xmit drops what validate_xmit_skb_list has changed). Who changes
// the device's offloads must open the Sender anew.
func limitsOf(ifindex int) (frame.Limits, error) {
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return frame.Limits{}, fmt.Errorf("finding the device (index %d): %w", ifindex, err)
	}
	on, err := features(ifindex)
	if err != nil {
		return frame.Limits{}, fmt.Errorf("asking for the device's offloads: %w: is the kernel built without CONFIG_ETHTOOL_NETLINK?", err)
	}
	limits := frame.Limits{Chunks: maxChunks}
	if on["tx-tcp-segmentation"] && on["tx-tcp6-segmentation"] && on["tx-tcp-ecn-segmentation"] {
		limits.Offload |= frame.OffloadTCP
	}
	if on["tx-udp-segmentation"] {
		limits.Offload |= frame.OffloadUDP
	}
	if limits.Offload != 0 {
		limits.Bytes = wholeBytes(l.Attrs())
	}
	return limits, nil
}

// wholeBytes is the length of the longest frame that the device takes whole, in
// bytes (net/core/dev.c, gso_features_check).
func wholeBytes(a *netlink.LinkAttrs) int {
	n := frame.MaxBytes
	for _, most := range []uint32{a.GSOMaxSize, a.GSOIPv4MaxSize} {
		if most > 0 { // 0: this kernel does not say
			n = min(n, int(most)-1)
		}
	}
	return n
}

// Of include/uapi/linux/ethtool_netlink_generated.h.
const (
	featuresGet    = 11 // ETHTOOL_MSG_FEATURES_GET
	featuresHeader = 1  // ETHTOOL_A_FEATURES_HEADER
	featuresActive = 4  // ETHTOOL_A_FEATURES_ACTIVE
	bitsetBits     = 3  // ETHTOOL_A_BITSET_BITS
	bitsetBit      = 1  // ETHTOOL_A_BITSET_BITS_BIT
	bitName        = 2  // ETHTOOL_A_BITSET_BIT_NAME
)

// genlHeader is struct genlmsghdr: command, version, reserved. nl.Genlmsg sends
// what lies in memory behind it as the latter.
type genlHeader [4]byte

func (genlHeader) Len() int            { return len(genlHeader{}) }
func (h genlHeader) Serialize() []byte { return h[:] }

// ethtoolFamily is asked for once: it stays what it is while the kernel runs.
var ethtoolFamily = sync.OnceValues(func() (*netlink.GenlFamily, error) {
	return netlink.GenlFamilyGet(unix.ETHTOOL_GENL_NAME)
})

// features are the names of a device's offloads that are on, as ethtool -k has them.
func features(ifindex int) (map[string]bool, error) {
	family, err := ethtoolFamily()
	if err != nil {
		return nil, err
	}
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	req.AddData(genlHeader{featuresGet, unix.ETHTOOL_GENL_VERSION})
	header := nl.NewRtAttr(featuresHeader|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_INDEX, nl.Uint32Attr(uint32(ifindex)))
	req.AddData(header)
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return nil, err
	}
	on := make(map[string]bool)
	for _, m := range msgs {
		body := m[min(len(m), len(genlHeader{})):]
		for _, name := range inside([][]byte{body}, featuresActive, bitsetBits, bitsetBit, bitName) {
			on[string(bytes.TrimRight(name, "\x00"))] = true
		}
	}
	return on, nil
}

// inside is the values of the attributes that a path of types leads to.
func inside(values [][]byte, path ...uint16) [][]byte {
	for _, kind := range path {
		var next [][]byte
		for _, v := range values {
			attrs, err := nl.ParseRouteAttr(v)
			if err != nil {
				continue
			}
			for _, a := range attrs {
				if a.Attr.Type&^unix.NLA_F_NESTED == kind {
					next = append(next, a.Value)
				}
			}
		}
		values = next
	}
	return values
}
