package podlink

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

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

// The limits of the ethtool feature interface (include/uapi/linux/ethtool.h).
const (
	gstringLen  = 32 // ETH_GSTRING_LEN
	maxFeatures = 512
)

// disableLossyFeatures switches lossyFeatures off on a device of the thread's
// namespace.
func disableLossyFeatures(dev string) error { return setFeatures(dev, false, lossyFeatures...) }

// setFeatures switches offloads of a device of the thread's namespace on or off, and
// makes sure of the first. One that this kernel does not know is skipped.
func setFeatures(dev string, want bool, names ...string) error {
	e, err := openEthtool(dev)
	if err != nil {
		return fmt.Errorf("offloads of %s: %w", dev, err)
	}
	defer e.close()
	index, err := e.featureIndex()
	if err != nil {
		return fmt.Errorf("offloads of %s: %w", dev, err)
	}
	var bits []int
	for _, name := range names {
		if bit, ok := index[name]; ok {
			bits = append(bits, bit)
		}
	}
	if err := e.set(len(index), bits, want); err != nil {
		return fmt.Errorf("switching offloads of %s: %w", dev, err)
	}
	on, err := e.active(len(index))
	if err != nil {
		return fmt.Errorf("offloads of %s: %w", dev, err)
	}
	if bit, ok := index[names[0]]; ok && on[bit] != want {
		return fmt.Errorf("offload %s of %s is on: %t, although it was switched otherwise", names[0], dev, on[bit])
	}
	return nil
}

// Feature reports whether an offload, by ethtool's long name, is active on a
// device of the calling thread's namespace.
func Feature(dev, name string) (bool, error) {
	e, err := openEthtool(dev)
	if err != nil {
		return false, err
	}
	defer e.close()
	index, err := e.featureIndex()
	if err != nil {
		return false, err
	}
	bit, ok := index[name]
	if !ok {
		return false, fmt.Errorf("offload %q: %w", name, errors.ErrUnsupported)
	}
	on, err := e.active(len(index))
	if err != nil {
		return false, err
	}
	return on[bit], nil
}

// featureIndex reads the kernel's feature names and their bits.
func (e *ethtool) featureIndex() (map[string]int, error) {
	n, err := e.featureCount()
	if err != nil {
		return nil, err
	}
	if n == 0 || n > maxFeatures {
		return nil, fmt.Errorf("kernel reports %d features", n)
	}
	text, err := e.featureStrings(n)
	if err != nil {
		return nil, err
	}
	index := make(map[string]int, n)
	for i := range n {
		index[unix.ByteSliceToString(text[i*gstringLen:(i+1)*gstringLen])] = i
	}
	return index, nil
}
