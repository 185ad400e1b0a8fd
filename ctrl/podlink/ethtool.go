package podlink

import "culvert/internal/ethtool"

// udpSegmentation is an offload that depends on how culvertd receives from the pod:
// with a virtio_net_hdr each packet's gso_size arrives, through an XDP program it
// does not. It is off until Tune knows.
const udpSegmentation = "tx-udp-segmentation"

// lossyFeatures are the pod's transmit offloads that Culvert cannot carry: a
// packet that needs one arrives without what the offload still had to do.
//
// TCP segmentation, scatter-gather and transmit checksums are not among them:
// they stay on. A big TCP packet can be cut even without its gso_size, since TCP
// takes any segment size, and a partial checksum is recognised by its value.
// For a big SCTP or tunnelled packet of a pod's own there is no virtio_net_hdr, and a
// VLAN tag in the skb's metadata is lost.
var lossyFeatures = []string{
	udpSegmentation,
	"tx-sctp-segmentation",
	"tx-gso-list",
	"tx-udp_tnl-segmentation",
	"tx-udp_tnl-csum-segmentation",
	"tx-gre-segmentation",
	"tx-gre-csum-segmentation",
	"tx-ipxip4-segmentation",
	"tx-ipxip6-segmentation",
	"tx-vlan-hw-insert",
	"tx-vlan-stag-hw-insert",
}

// disableLossyFeatures switches lossyFeatures off on a device of the thread's
// namespace.
func disableLossyFeatures(dev string) error { return ethtool.Set(dev, false, lossyFeatures...) }
