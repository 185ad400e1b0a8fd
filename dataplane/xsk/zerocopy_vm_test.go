//go:build vm

package xsk

import (
	"fmt"
	"net/netip"
	"testing"
)

// These tests run inside a virtual machine (make test-vm): virtio-net is the one
// driver there is for AF_XDP zero copy. Its two NICs are joined by a cable.
//
// With XDP attached, virtio-net takes spare queue pairs for XDP if there are as
// many as CPUs, and receives on them too (drivers/net/virtio_net.c,
// virtnet_xdp_set). They get no socket here: Linux 7.2 keeps such a queue's pool
// after the program is detached, and attaching again crashes the kernel
// (xp_alloc_batch on a freed pool). So the NICs have three or four queue pairs
// in use of their four, which leaves too few for XDP to take any.

// What our layer asks for is what it gets, by the kernel's word for it.
func TestVMZeroCopyBinds(t *testing.T) {
	for _, attach := range []struct {
		name string
		do   func(int, string, Mode) (*Attachment, error)
	}{
		{"uplink", func(index int, name string, mode Mode) (*Attachment, error) {
			return AttachUplink(index, name, mode, nil)
		}},
		{"pod", AttachPod},
	} {
		for _, zeroCopy := range []string{ZeroCopyOn, ZeroCopyAuto, ZeroCopyOff} {
			for _, sg := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/SG=%t", attach.name, zeroCopy, sg), func(t *testing.T) {
					e := newNIC(t, 0, 4)
					e.open(t, attach.do, SocketConfig{RingSize: 64, ZeroCopy: zeroCopy, SG: sg})
					for i, s := range e.socks {
						if want := zeroCopy != ZeroCopyOff; s.ZeroCopy() != want || !optionsZeroCopy(t, s.fd) == want {
							t.Errorf("queue %d: zero-copy %t, the kernel says %t; want %t", i, s.ZeroCopy(), optionsZeroCopy(t, s.fd), want)
						}
						if zeroCopy != ZeroCopyOff && s.Multibuffer() {
							t.Errorf("queue %d: multi-buffer, which virtio-net does not have with zero copy", i)
						}
					}
					e.close(t)
				})
			}
		}
	}
}

// Every frame of every length arrives, once and unchanged, both ways at once and
// on all queues; and both ends have all their chunks back afterwards.
func TestVMZeroCopyCounts(t *testing.T) {
	w := newWire(t, 4, ZeroCopyOn)
	w.exchange(t, 20000)
	for i, e := range w {
		for q, s := range e.socks {
			if s.received == 0 {
				t.Errorf("NIC %d received nothing on queue %d", i, q)
			}
		}
	}
	w.close(t)
}

// One end in copy mode changes nothing for the other.
func TestVMZeroCopyToCopy(t *testing.T) {
	w := &wire{newNIC(t, 0, 4), newNIC(t, 1, 4)}
	for i, zeroCopy := range []string{ZeroCopyOn, ZeroCopyOff} {
		w[i].open(t, AttachPod, SocketConfig{RingSize: ringSize, ZeroCopy: zeroCopy})
	}
	w.carrier(t)
	w.exchange(t, 3000)
	w.close(t)
}

// A NIC that goes down and up again goes on with the same sockets. Frames that
// are sent meanwhile are lost, and their chunks are not.
func TestVMZeroCopyLinkDownUp(t *testing.T) {
	w := newWire(t, 4, ZeroCopyOn)
	w.exchange(t, 2000)
	for range 3 {
		for _, e := range w {
			e.ns.Down(t, e.name)
			for n := range 500 {
				e.send(w[0], n)
			}
			e.ns.Up(t, e.name)
			w.carrier(t)
			w.exchange(t, 2000)
		}
	}
	w.close(t)
}

// The number of queues cannot change under the sockets, and traffic goes on when
// somebody tries. After they are closed it can, and new ones serve the others.
func TestVMZeroCopyQueueChange(t *testing.T) {
	for _, queues := range []int{4, 3, 4} {
		t.Run(fmt.Sprint(queues, " queues"), func(t *testing.T) {
			w := newWire(t, queues, ZeroCopyOn)
			w.exchange(t, 2000)
			for _, e := range w {
				if err := e.setQueues(t, 7-queues); err == nil {
					t.Errorf("the number of queues of %s changed under its sockets", e.name)
				}
			}
			w.exchange(t, 2000)
			w.close(t)
		})
	}
}

// A kernel's stack at the other end has no part in it: it answers what we ask.
func TestVMZeroCopyToKernel(t *testing.T) {
	for _, zeroCopy := range []string{ZeroCopyOn, ZeroCopyOff} {
		t.Run(zeroCopy, func(t *testing.T) {
			e, peer := newNIC(t, 0, 4), newNIC(t, 1, 4)
			peer.ns.AddAddr(t, peer.name, "192.0.2.2/24")
			e.open(t, AttachPod, SocketConfig{RingSize: 64, ZeroCopy: zeroCopy})
			(&wire{e, peer}).carrier(t)
			e.askARP(t, netip.MustParseAddr("192.0.2.2"), 200)
			e.close(t)
		})
	}
}
