package underlay

import (
	"fmt"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// subBuffer is the subscription's receive buffer: a few thousand messages, as
// when a hundred pods end at once.
const subBuffer = 4 << 20

// groups are the changes that the kernel is asked to tell.
var groups = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_NEXTHOP,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
	unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE,
}

// batch is what one read of the subscription brought.
type batch struct {
	msgs []syscall.NetlinkMessage
	err  error
}

// sub is a subscription to the kernel's notifications. The socket collects
// them from the start; start begins to hand them on.
type sub struct {
	socket *nl.NetlinkSocket
	in     chan batch
	done   chan struct{}
	reader sync.WaitGroup
	once   sync.Once
}

// subscribe opens a subscription in the kernel's namespace.
func (k *kernel) subscribe() (*sub, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return nil, errStopped
	}
	socket, err := nl.SubscribeAt(k.at(), netns.None(), unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return nil, fmt.Errorf("subscribing to the kernel's network changes: %w", err)
	}
	if socket.SetReceiveBufferSize(subBuffer, true) != nil {
		// Without CAP_NET_ADMIN: whatever rmem_max allows. Overflows are survived.
		_ = socket.SetReceiveBufferSize(subBuffer, false)
	}
	return &sub{socket: socket, in: make(chan batch), done: make(chan struct{})}, nil
}

// start makes the goroutine that reads until the first error, which it hands
// on too: after an overflow as after anything else, what is still in the
// socket is older than what was lost, so the subscription is of no more use.
func (s *sub) start() {
	s.reader.Go(func() {
		for {
			msgs, from, err := s.socket.Receive()
			if err == nil && from.Pid != nl.PidKernel {
				continue // another process cannot tell us anything
			}
			select {
			case s.in <- batch{msgs, err}:
			case <-s.done:
				return
			}
			if err != nil {
				return
			}
		}
	})
}

// close ends the subscription and its goroutine.
func (s *sub) close() {
	s.once.Do(func() {
		close(s.done)
		s.socket.Close()
	})
	s.reader.Wait()
}
