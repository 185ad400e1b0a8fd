package xsk

import (
	"errors"
	"fmt"

	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// openSocket makes and binds a socket of class c: as a sharer of anchor's
// registration, or with one of its own if anchor is nil. u.mu is held.
func openSocket(u *Umem, cfg SocketConfig, c class, anchor *Socket) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making an AF_XDP socket: %w", err)
	}
	s := &Socket{pool: u.pool, umem: u, class: c, fd: fd, ifindex: cfg.Ifindex, name: cfg.Ifname, queue: cfg.Queue}
	if err := s.open(cfg, anchor); err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

func (s *Socket) open(cfg SocketConfig, anchor *Socket) error {
	if anchor != nil {
		s.metadata = anchor.metadata
	} else if err := s.register(); err != nil {
		return err
	}
	if err := s.makeRings(cfg.RingSize); err != nil {
		return err
	}
	if err := s.bind(anchor); err != nil {
		return err
	}
	s.tuneSend(cfg.RingSize)
	s.csumOffload = s.metadata
	if s.class.zeroCopy && s.metadata {
		s.csumOffload = queryFeatures(cfg.Ifindex).txChecksum
	}
	return nil
}

// register makes the pool's memory the socket's UMEM. Kernels before 6.8 know
// no transmit metadata (Documentation/networking/xsk-tx-metadata.rst).
func (s *Socket) register() error {
	s.metadata = true
	err := registerUmem(s.fd, s.pool.Region(), s.pool.ChunkSize(), true)
	if errors.Is(err, unix.EINVAL) {
		s.metadata = false
		err = registerUmem(s.fd, s.pool.Region(), s.pool.ChunkSize(), false)
	}
	if err != nil {
		return fmt.Errorf("registering %d bytes of memory: %w", len(s.pool.Region()), err)
	}
	return nil
}

// makeRings makes and maps the four rings. The completion ring holds twice the
// transmit ring, because sends stop with EAGAIN when it is full, and the fill
// ring twice the receive ring, so that a burst finds free chunks while the
// worker is busy with the burst before.
func (s *Socket) makeRings(n int) error {
	for _, r := range []struct {
		name    string
		option  int
		entries int
	}{
		{"fill", unix.XDP_UMEM_FILL_RING, 2 * n},
		{"completion", unix.XDP_UMEM_COMPLETION_RING, 2 * n},
		{"receive", unix.XDP_RX_RING, n},
		{"transmit", unix.XDP_TX_RING, n},
	} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_XDP, r.option, r.entries); err != nil {
			return fmt.Errorf("making the %s ring of %d: %w", r.name, r.entries, err)
		}
	}
	at, err := mmapOffsets(s.fd)
	if err != nil {
		return fmt.Errorf("asking for the rings' layout: %w", err)
	}
	if s.fill, err = mapFill(s.fd, &at.Fr, 2*n); err != nil {
		return fmt.Errorf("fill ring: %w", err)
	}
	if s.comp, err = mapCompletion(s.fd, &at.Cr, 2*n); err != nil {
		return fmt.Errorf("completion ring: %w", err)
	}
	if s.rx, err = mapRx(s.fd, &at.Rx, n); err != nil {
		return fmt.Errorf("receive ring: %w", err)
	}
	if s.tx, err = mapTx(s.fd, &at.Tx, n); err != nil {
		return fmt.Errorf("transmit ring: %w", err)
	}
	return nil
}

// bind ties the socket to its queue. A sharer may give no other flag: it
// inherits them from the anchor (net/xdp/xsk.c, xsk_bind).
func (s *Socket) bind(anchor *Socket) error {
	sa := &unix.SockaddrXDP{Ifindex: uint32(s.ifindex), QueueID: uint32(s.queue)}
	if anchor != nil {
		sa.Flags, sa.SharedUmemFD = unix.XDP_SHARED_UMEM, uint32(anchor.fd)
	} else {
		sa.Flags = unix.XDP_USE_NEED_WAKEUP | unix.XDP_COPY
		if s.class.zeroCopy {
			sa.Flags = unix.XDP_USE_NEED_WAKEUP | unix.XDP_ZEROCOPY
		}
		if s.class.sg {
			sa.Flags |= unix.XDP_USE_SG
		}
	}
	if err := unix.Bind(s.fd, sa); err != nil {
		return fmt.Errorf("binding (zero-copy %t, multi-buffer %t): %w", s.class.zeroCopy, s.class.sg, err)
	}
	return nil
}

const (
	// sendBuffer is the socket's limit of bytes on their way in copy mode. The
	// default of 208 KiB is three big frames.
	sendBuffer = 4 << 20
	// sendBudget is how many descriptors one system call sends at most in copy
	// mode; the kernel's default is 32.
	sendBudget = 256
)

// tuneSend raises what limits a send in copy mode. A kernel that refuses sends
// in smaller portions: no reason to fail.
func (s *Socket) tuneSend(ringSize int) {
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	_ = unix.SetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, min(sendBudget, ringSize)) // since 6.17
}

// release unmaps the rings, then closes the descriptor: the mappings hold the
// socket as much as the descriptor does.
func (s *Socket) release() error {
	return errors.Join(s.rx.unmap(), s.tx.unmap(), s.fill.unmap(), s.comp.unmap(), unix.Close(s.fd))
}

var _ frame.Device = (*Socket)(nil)
