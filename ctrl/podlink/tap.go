package podlink

import (
	"errors"
	"fmt"

	"culvert/dataplane/tap"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A TAP is made inside the pod's namespace, by dataplane/tap, which knows how it
// will be opened. There is no host end to name or to find it by: it carries the
// host name as a mark, its alias.

// tapType is netlink's word for what /dev/net/tun makes.
const tapType = "tuntap"

// maxTAP is the largest MTU of a TAP (drivers/net/tun.c, tun_net_initialize).
const maxTAP = 65535 - 14

// tapRing is how many frames each queue of a TAP holds for culvertd to read. There
// is no back-pressure: a frame that finds the ring full is lost. What it takes to
// ride out a busy worker; more would let a pod that sends 64 KB datagrams keep
// more of the node's memory than that.
const tapRing = 2048

// createTAP is Create of a TAP.
func createTAP(ns *Netns, spec *Spec) (link Link, err error) {
	if _, ok, err := Find(Ref{Kind: Veth, HostName: spec.HostName}); err != nil {
		return Link{}, err
	} else if ok {
		return Link{}, fmt.Errorf("%s: %w", spec.HostName, ErrHostNameTaken)
	}
	link.MAC = spec.MAC
	err = ns.Do(func() error {
		made, err := tap.Make(spec.IfName)
		if errors.Is(err, tap.ErrExists) {
			return fmt.Errorf("%s: %w", spec.IfName, ErrInterfaceExists)
		}
		if err != nil {
			return fmt.Errorf("in the pod: %w", err)
		}
		defer made.Close()
		if err = prepareTAP(spec); err == nil {
			link.PodIfindex, err = setUpPod(spec)
		}
		if err != nil {
			err = errors.Join(err, deleteHere(spec.IfName, nil))
		}
		return err
	})
	if err != nil {
		return Link{}, err
	}
	link.Ifindex = link.PodIfindex
	return link, nil
}

// prepareTAP gives a new TAP what a veth's end has from the start. The thread is
// in the pod's namespace.
func prepareTAP(spec *Spec) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink in the pod: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(spec.IfName)
	if err != nil {
		return fmt.Errorf("%s in the pod: %w", spec.IfName, err)
	}
	for _, step := range []struct {
		what string
		err  error
	}{
		{"alias", h.LinkSetAlias(link, mark(&spec.Ref))},
		{"MAC", h.LinkSetHardwareAddr(link, spec.MAC)},
		{"MTU", h.LinkSetMTU(link, spec.MTU)},
		{"queue length", h.LinkSetTxQLen(link, tapRing)},
	} {
		if step.err != nil {
			return fmt.Errorf("%s of %s in the pod: %w", step.what, spec.IfName, step.err)
		}
	}
	// A queueing discipline would never hold a frame, for a TAP takes or drops
	// each at once; the default one is 256 of them, with memory for as many
	// frames as the ring each (net/sched/sch_mq.c, mq_init; sch_generic.c,
	// pfifo_fast_init). Without it the pod works as well.
	_ = h.QdiscAdd(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT}, QdiscType: "noqueue",
	})
	return nil
}

// removeTAP is Remove of a TAP. An interface of that name which is another's is
// left alone: ours is gone.
func removeTAP(ref *Ref) error {
	ns, err := OpenNetns(ref.Netns)
	if netnsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(func() error { return deleteHere(ref.IfName, ref) })
}

// deleteHere deletes an interface of the thread's namespace; with ref only if it
// is that TAP.
func deleteHere(name string, ref *Ref) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink in the pod: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if isGone(err) || err == nil && ref != nil && !isOurs(link, ref) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s in the pod: %w", name, err)
	}
	if err := h.LinkDel(link); err != nil && !isGone(err) {
		return fmt.Errorf("deleting %s in the pod: %w", name, err)
	}
	return nil
}

// findTAP is Find of a TAP.
func findTAP(ref *Ref) (ifindex int, ok bool, err error) {
	ns, err := OpenNetns(ref.Netns)
	if netnsGone(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer ns.Close()
	err = ns.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink in the pod: %w", err)
		}
		defer h.Close()
		link, err := h.LinkByName(ref.IfName)
		if isGone(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s in the pod: %w", ref.IfName, err)
		}
		ifindex, ok = link.Attrs().Index, isOurs(link, ref)
		return nil
	})
	return ifindex, ok && err == nil, err
}

// isOurs reports whether link is the TAP that Create made for ref.
func isOurs(link netlink.Link, ref *Ref) bool {
	return link.Type() == tapType && link.Attrs().Alias == mark(ref)
}

// mark is the alias of ref's TAP.
func mark(ref *Ref) string { return "culvert " + ref.HostName }
