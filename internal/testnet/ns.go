// Package testnet gives tests real network namespaces, veth pairs and pings.
//
// Everything a test makes here is anonymous and ends with the test: namespaces
// have no name under /run/netns, so that even a test process that is killed
// leaves nothing behind. The tests need root and fail without it: on the
// machines that count, a skipped test is a test that nobody ran.
//
//	pod, node := testnet.NewNS(t), testnet.NewNS(t)
//	testnet.Veth(t, pod, "eth0", node, testnet.Name("p"))
//	pod.AddAddr(t, "eth0", "10.0.0.2/24")
//	node.Do(t, func() { ... runs inside node ... })
package testnet

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is a network namespace of one test, with its loopback up.
type NS struct {
	handle netns.NsHandle
}

// NewNS makes an empty network namespace that ends with the test.
func NewNS(t testing.TB) *NS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	ns := &NS{handle: netns.None()}
	onOwnThread(t, func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("making a network namespace: %v", err)
			return
		}
		h, err := netns.Get()
		if err != nil {
			t.Errorf("opening the new network namespace: %v", err)
			return
		}
		ns.handle = h
		if err := up("lo"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if ns.handle.IsOpen() {
			ns.handle.Close()
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return ns
}

// Do runs f inside the namespace, on a thread of its own that is thrown away
// afterwards: sockets and processes that f makes are in the namespace and stay
// there. f may end the test with t.Fatal. Goroutines that f starts run outside
// of the namespace.
func (ns *NS) Do(t testing.TB, f func()) {
	t.Helper()
	onOwnThread(t, func() {
		if err := netns.Set(ns.handle); err != nil {
			t.Errorf("entering the network namespace: %v", err)
			runtime.Goexit()
		}
		f()
	})
}

// Handle is the namespace's descriptor, for netlink calls. It is closed when
// the test ends.
func (ns *NS) Handle() netns.NsHandle { return ns.handle }

// onOwnThread runs f on a goroutine whose thread dies with it, and hands f's
// panic or Goexit on to the caller.
func onOwnThread(t testing.TB, f func()) {
	t.Helper()
	finished, cause := false, any(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		defer func() {
			if !finished {
				cause = recover()
			}
		}()
		f()
		finished = true
	}()
	<-done
	if cause != nil {
		panic(cause)
	}
	if !finished {
		runtime.Goexit()
	}
}

// Name is a random device name that begins with cvx: what a failed test might
// leave behind is recognisable.
func Name(infix string) string {
	return fmt.Sprintf("cvx%s%06x", infix, rand.Uint32N(1<<24))
}

func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	return nil
}
