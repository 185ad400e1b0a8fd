// Package probe finds out what this machine's kernel, devices and network can do by trying
// it: in a network namespace of its own that ends with the try, or with packets that
// change nothing. What of it matters, and what to do, is the caller's business.
package probe

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/dataplane/frame"
	"culvert/dataplane/intake"
	"culvert/dataplane/tap"
	"culvert/dataplane/xsk"
)

// elsewhere runs f on a thread of its own in a new network namespace; both end with it.
func elsewhere(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("making a network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// chunks is the memory of a worker in chunks of chunkSize: 64 MB, as culvertd has it.
const (
	chunks    = 16384
	chunkSize = 4096
	ringSize  = 2048
)

// Dataplane makes what a worker receives by, out of the dataplane's own parts: veths, frame
// memory, AF_XDP and packet sockets, the BPF programs, XDP and tcx.
func Dataplane() error {
	return elsewhere(func() (err error) {
		pool, err := frame.NewPool(chunks, chunkSize, false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pool.Close()) }()
		in, err := intake.New(intake.Config{
			Workers: 1, RingSize: ringSize, Umems: []*xsk.Umem{xsk.NewUmem(pool)}, Pools: []*frame.Pool{pool}, Prefix: "cvdr",
		})
		if err != nil {
			return err
		}
		return in.Close()
	})
}

// TAP makes a TAP device with what a pod's has.
func TAP() error {
	return elsewhere(func() error {
		made, err := tap.Make("cvdrt")
		if err != nil {
			return err
		}
		return made.Close()
	})
}

// VXLAN makes a VXLAN device, by which the kernel's GRO knows the tunnels' UDP port.
func VXLAN() error {
	return elsewhere(func() error {
		err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "cvdrv", TxQLen: -1}, VxlanId: 1, Port: 4789})
		if err != nil {
			return fmt.Errorf("making a VXLAN device: %w", err)
		}
		return nil
	})
}

// Unlimited is a limit on locked memory that there is none of.
const Unlimited = ^uint64(0)

// LockedMemory is the limit on memory that this process may lock, in bytes.
func LockedMemory() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
		return 0, err
	}
	return l.Cur, nil
}
