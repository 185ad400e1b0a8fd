package intake

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// nearMAC is the address of the veths' near ends. It must not look like a tag, as one
// in 64 random addresses would: should the host send something by a near end, it
// arrives where the tagged frames do.
var nearMAC = net.HardwareAddr{0x06, 0, 0, 0, 0, 1}

// mtu is the largest that a veth can have.
const mtu = 65535

// makeVeth makes a veth pair of that many queues, the near end in the calling
// thread's network namespace and the far end in ns, both called name and up. It
// returns the index of the near end.
func makeVeth(name string, queues int, ns namespace) (index int, err error) {
	v := netlink.NewVeth(netlink.LinkAttrs{
		Name: name, TxQLen: -1, MTU: mtu, HardwareAddr: nearMAC, NumTxQueues: queues, NumRxQueues: queues,
	})
	v.PeerName, v.PeerMTU, v.PeerNamespace = name, mtu, netlink.NsFd(ns)
	v.PeerNumTxQueues, v.PeerNumRxQueues = uint32(queues), uint32(queues)
	if err := netlink.LinkAdd(v); err != nil {
		return 0, fmt.Errorf("making the veth %s: %w", name, err)
	}
	if index, err = prepare(name, true); err != nil {
		return 0, err
	}
	return index, ns.do(func() error {
		_, err := prepare(name, false)
		return err
	})
}

// prepare silences one end of a veth in the calling thread's network namespace,
// brings it up and returns its index.
func prepare(name string, near bool) (index int, err error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("finding %s: %w", name, err)
	}
	silence(name)
	if near {
		if err := netlink.LinkSetARPOff(l); err != nil {
			return 0, fmt.Errorf("switching ARP off on %s: %w", name, err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return 0, fmt.Errorf("bringing %s up: %w", name, err)
	}
	return l.Attrs().Index, nil
}

// removeVeth removes a veth by its near end, if it is there.
func removeVeth(index int) error {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil // gone with its namespace, or by someone's hand
	}
	if err := netlink.LinkDel(l); err != nil {
		return fmt.Errorf("removing %s: %w", l.Attrs().Name, err)
	}
	return nil
}
