package tap

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync/atomic"

	"culvert/dataplane/frame"
	"culvert/dataplane/mixed"
	"culvert/dataplane/vnet"
	"culvert/internal/sysctl"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoTunnelGSO says that the kernel cannot be handed big frames that are in
// VXLAN: it is older than Linux 6.17.
var ErrNoTunnelGSO = errors.New("the kernel takes no tunnelled segmentation from a TAP (before Linux 6.17)")

// ErrQueues says that a NIC queues what the kernel sends.
var ErrQueues = errors.New("big frames would be overtaken in it")

// Uplink sends big frames that are in VXLAN out of a NIC that the kernel drives:
// it writes them into a TAP of its own, and a program there redirects them to the
// NIC's egress, to the next hop that the kernel has for the outer destination.
// The NIC cuts them if it can, the kernel right before the driver otherwise. The
// host's packet filter does not see them.
//
// One goroutine calls Send; an uplink of several workers needs an Uplink each.
// Device and program end with the process.
type Uplink struct {
	tx   writer
	pool *frame.Pool

	name   string // of the NIC
	redir  link.Link
	closed atomic.Bool
}

// uplinkLimits are those of every Uplink: what VXLAN's outer IP packet may hold.
var uplinkLimits = frame.Limits{
	Offload: frame.OffloadTunnelTCP | frame.OffloadTunnelUDP | frame.OffloadOuterSum,
	Chunks:  frame.MaxChunks, Bytes: maxBytes, TxOnly: true,
}

// OpenUplink makes a TAP beside the NIC name, in the network namespace of the
// calling thread, for frames in chunks of pool. On a kernel that cannot do it,
// the error wraps ErrNoTunnelGSO, and for a NIC with a queueing discipline ErrQueues.
func OpenUplink(name string, ifindex int, pool *frame.Pool) (*Uplink, error) {
	nic, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return nil, fmt.Errorf("tap: finding uplink %s (index %d): %w", name, ifindex, err)
	}
	// AF_XDP's frames go past the queueing discipline (__dev_direct_xmit), ours do
	// not: where there is one, small frames would overtake big ones.
	qdiscs, err := netlink.QdiscList(nic)
	if err != nil {
		return nil, fmt.Errorf("tap: queueing disciplines of uplink %s: %w", name, err)
	}
	for _, q := range qdiscs {
		if q.Type() != "noqueue" && q.Type() != "clsact" {
			return nil, fmt.Errorf("tap: uplink %s has queueing discipline %s: %w", name, q.Type(), ErrQueues)
		}
	}
	tap := fmt.Sprintf("cvg%08x", rand.Uint32())
	fd, err := attach(tap, unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR|unix.IFF_TUN_EXCL)
	if err != nil {
		return nil, fmt.Errorf("tap: making %s for uplink %s: %w%s", tap, name, err, advice(err))
	}
	u := &Uplink{pool: pool, name: name}
	u.tx.init(fd, u.tx.hdr[:vnet.TunnelLen])
	if err := u.open(tap, ifindex); err != nil {
		return nil, errors.Join(fmt.Errorf("tap: %s for uplink %s: %w", tap, name, err), u.Close())
	}
	return u, nil
}

// open sets the TAP up, the program before it goes up: no frame of ours ever
// meets the host's stack.
func (u *Uplink) open(tap string, ifindex int) error {
	err := unix.IoctlSetInt(u.tx.fd, unix.TUNSETOFFLOAD, offTCP|offUDP|offTunnel)
	if errors.Is(err, unix.EINVAL) {
		return ErrNoTunnelGSO
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(u.tx.fd, unix.TUNSETVNETHDRSZ, vnet.TunnelLen)
	}
	if err != nil {
		return fmt.Errorf("setting its offloads: %w", err)
	}
	err = sysctl.Write("net/ipv6/conf/"+tap+"/disable_ipv6", "1")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("switching its IPv6 off: %w", err)
	}
	l, err := netlink.LinkByName(tap)
	if err != nil {
		return fmt.Errorf("finding it: %w", err)
	}
	if u.redir, err = redirect(l.Attrs().Index, ifindex); err != nil {
		return err
	}
	if err := netlink.LinkSetARPOff(l); err != nil {
		return fmt.Errorf("switching its ARP off: %w", err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("bringing it up: %w", err)
	}
	return nil
}

// redirect attaches the program that sends what arrives on a device out of
// another.
func redirect(from, to int) (link.Link, error) {
	spec, err := loadRedirect()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables[redirectVarUplink].Set(uint32(to)); err != nil {
		return nil, fmt.Errorf("setting its program's target: %w", err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("loading its program: %w: Culvert needs Linux 6.6 or later and CAP_BPF with CAP_NET_ADMIN", err)
	}
	defer coll.Close() // the link keeps what it needs
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: from, Program: coll.Programs[redirectProgToUplink], Attach: ebpf.AttachTCXIngress,
	})
	if err != nil {
		return nil, fmt.Errorf("attaching its program: %w: Culvert needs Linux 6.6 or later", err)
	}
	return l, nil
}

// Limits say which frames Send takes.
func (u *Uplink) Limits() frame.Limits { return uplinkLimits }

// Send sends f, whose outer UDP checksum, if it is in VXLAN, must be partial with
// frame.SegOuterSum and 0 without. The kernel has
// copied it when Send returns: the chunks remain the caller's, whatever the
// result. That the NIC is down or gone does not show here: the program's redirect
// then drops the frame, and the kernel's links tell.
func (u *Uplink) Send(f *frame.Frame) mixed.Result {
	if !sendable(&uplinkLimits, f) || u.missummed(f) {
		return mixed.Refused
	}
	return u.tx.write(u.pool, f)
}

// missummed reports whether f has an outer UDP checksum of which the kernel is not
// told (SKB_GSO_UDP_TUNNEL_CSUM), or none where it is: it would be wrong on all
// segments.
func (u *Uplink) missummed(f *frame.Frame) bool {
	if f.OuterL4 == 0 || f.SegSize == 0 {
		return f.Flags&frame.SegOuterSum != 0
	}
	const check = 6 // struct udphdr
	if uint32(f.OuterL4)+check+2 > f.Len {
		return true // no such header: refused all the same
	}
	sum := u.pool.Bytes(f.Addr+uint64(f.OuterL4)+check, 2)
	return sum[0]|sum[1] != 0 != (f.Flags&frame.SegOuterSum != 0)
}

// Close removes the TAP. Closing twice is harmless.
func (u *Uplink) Close() error {
	if u.closed.Swap(true) {
		return nil
	}
	errs := []error{unix.Close(u.tx.fd)} // and with the TAP its program goes
	if u.redir != nil {
		errs = append(errs, u.redir.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tap: closing that of uplink %s: %w", u.name, err)
	}
	return nil
}
