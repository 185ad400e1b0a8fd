package peer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"culvert/bench/testbed"
	"culvert/dataplane/frame"
	"culvert/dataplane/xsk"

	"golang.org/x/sys/unix"
)

// Bare is the least that a forwarder on Culvert's AF_XDP sockets can be: one
// busy thread in this process, no tables, no flows. It shows what attach modes
// cost, and is the bound of what Culvert's pipeline can reach.
type Bare struct {
	// Pod and Uplink are how the XDP programs are attached.
	Pod, Uplink xsk.Mode
	// CPU is the thread's processor.
	CPU int
}

// Name implements Device.
func (b Bare) Name() string { return fmt.Sprintf("bare-%s-%s", b.Pod, b.Uplink) }

// Check implements Device.
func (b Bare) Check(o Options) error {
	if o = o.full(); o.Pods > 1 || o.Peers > 1 || o.Encap != VXLAN {
		return fmt.Errorf("the bare forwarder has no tables: it serves one pod and one peer by VXLAN, not %d, %d by %s", o.Pods, o.Peers, o.Encap)
	}
	return nil
}

// Start implements Device.
func (b Bare) Start(ctx context.Context, o Options) (*Instance, error) {
	return start(ctx, b, o, func(i *Instance) error {
		err := inOrder(
			func() error { return i.Bed.AddUnderlay(testbed.Uplink) },
			func() error { return i.Bed.ConnectPods(testbed.PodMTU) },
			func() error { return sumChecksums(i.Bed) },
			func() error { return b.run(i) },
		)
		if err != nil {
			return fmt.Errorf("bare forwarder: %w", err)
		}
		i.Note = fmt.Sprintf("1 busy thread, pod %s, uplink %s, tx checksum offload off in the pod and on the wire", b.Pod, b.Uplink)
		return nil
	})
}

// Sizes of the forwarder's memory and rings.
const (
	bareChunks    = 16384
	bareChunkSize = 4096
	bareRing      = 2048
)

// run opens both ports and starts the thread.
func (b Bare) run(i *Instance) error {
	pool, err := frame.NewPool(bareChunks, bareChunkSize, false)
	if err != nil {
		return err
	}
	i.onClose(pool.Close)
	i.own = bareChunks * bareChunkSize // what else it has is next to nothing
	umem := xsk.NewUmem(pool)
	var pod, uplink *xsk.Socket
	err = i.Bed.Node.Do(func() (err error) {
		if pod, err = openBare(i, umem, testbed.HostDevice, b.Pod, nil); err != nil {
			return err
		}
		ends := []xsk.Endpoint{{Addr: testbed.NodeAddr, Port: testbed.Port}}
		uplink, err = openBare(i, umem, testbed.Uplink, b.Uplink, ends)
		return err
	})
	if err != nil {
		return err
	}
	for _, s := range []*xsk.Socket{pod, uplink} {
		if err := s.Start(pool.NewOwner(), 2*bareRing); err != nil {
			return err
		}
	}
	f, err := newBareForwarder(pool)
	if err != nil {
		return err
	}
	started := make(chan error)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread's affinity ends with it
		var set unix.CPUSet
		set.Set(b.CPU)
		i.CPU = append(i.CPU, fmt.Sprintf("/proc/self/task/%d", unix.Gettid()))
		err := unix.SchedSetaffinity(0, &set)
		started <- err
		for err == nil && !stop.Load() {
			f.pass(pod, uplink, f.encap)
			f.pass(uplink, pod, f.decap)
		}
	}()
	i.onClose(func() error {
		stop.Store(true)
		<-done
		return nil
	})
	return <-started
}

// openBare attaches a program to a device of the calling thread's namespace,
// the uplink's if there are endpoints, and opens its queue 0.
func openBare(i *Instance, umem *xsk.Umem, name string, mode xsk.Mode, ends []xsk.Endpoint) (*xsk.Socket, error) {
	index, err := ifindex(name)
	if err != nil {
		return nil, err
	}
	var a *xsk.Attachment
	if ends == nil {
		a, err = xsk.AttachPod(index, name, mode)
	} else {
		a, err = xsk.AttachUplink(index, name, mode, ends)
	}
	if err != nil {
		return nil, err
	}
	s, err := umem.Open(xsk.SocketConfig{Ifindex: index, Ifname: name, RingSize: bareRing, SG: true})
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	i.onClose(s.Close)
	i.onClose(a.Close)
	return s, a.SetSocket(0, s)
}
