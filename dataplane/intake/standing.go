package intake

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// podProgram is what a pod's program is called in the kernel: it is known again by that.
const podProgram = "culvert_pod"

// A pod's program is attached without a bpf_link: it stands on the device until the
// device goes, or Attachment.Close, and drops what the pod sends while no process has an
// intake. The next process puts its own in the place of it. That is what makes a
// restart short: to attach the first program of a device, or to detach the last one,
// the kernel waits for an RCU grace period with the rtnl lock held, some 10 ms for
// every pod (include/net/tcx.h, tcx_entry_sync); to replace one, it does not.

// nail attaches one of the intake's own programs to one of its own devices, in the calling
// thread's namespace: it ends with that.
func (in *Intake) nail(program string, ifindex int) error {
	err := link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: ifindex, Program: in.coll.Programs[program], Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
	})
	if err != nil {
		return fmt.Errorf("attaching the tcx program %s: %w", program, err)
	}
	return nil
}

// stand attaches a pod's program to a device, or puts it in the place of the one that an
// earlier process has left there, and returns what takes it off.
func stand(ifindex int, p *ebpf.Program) (off func() error, err error) {
	opts := link.RawAttachProgramOptions{Target: ifindex, Program: p, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()}
	left, err := leftBehind(ifindex)
	if err != nil {
		return nil, err
	}
	if left != nil {
		defer left.Close()
		opts.Anchor = link.ReplaceProgram(left)
	}
	if err := link.RawAttachProgram(opts); err != nil {
		return nil, err
	}
	return func() error {
		err := link.RawDetachProgram(link.RawDetachProgramOptions{Target: ifindex, Program: p, Attach: ebpf.AttachTCXIngress})
		if err != nil && !stands(ifindex) { // gone with its device, or by someone's hand
			return nil
		}
		return err
	}, nil
}

// TakeOff detaches the program that an earlier process's intake has left on a pod's device, if
// there is one, for who takes the pod's frames in another way. The device is one of the
// calling thread's network namespace.
func TakeOff(ifindex int) error {
	left, err := leftBehind(ifindex)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return nil // no tcx: nothing has been left
	}
	if left == nil {
		return err
	}
	defer left.Close()
	err = link.RawDetachProgram(link.RawDetachProgramOptions{Target: ifindex, Program: left, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return fmt.Errorf("intake: taking off the program that an earlier process has left: %w", err)
	}
	return nil
}

// stands reports whether a device has a pod's program.
func stands(ifindex int) bool {
	p, err := leftBehind(ifindex)
	if p != nil {
		_ = p.Close()
	}
	return err == nil && p != nil
}

// leftBehind is the pod's program that stands on a device, nil if there is none.
func leftBehind(ifindex int) (*ebpf.Program, error) {
	all, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return nil, err
	}
	for _, at := range all.Programs {
		if _, linked := at.LinkID(); linked {
			continue
		}
		p, err := ebpf.NewProgramFromID(at.ID)
		if errors.Is(err, fs.ErrNotExist) {
			continue // detached meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("looking at the program that stands there: %w", err)
		}
		info, err := p.Info()
		if err == nil && info.Name == podProgram {
			return p, nil
		}
		if err := errors.Join(err, p.Close()); err != nil {
			return nil, fmt.Errorf("looking at the program that stands there: %w", err)
		}
	}
	return nil, nil
}
