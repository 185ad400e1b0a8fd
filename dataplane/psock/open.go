package psock

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// setting is one socket option.
type setting struct {
	what          string
	level, option int
	value         int
}

// openSocket makes a packet socket with a virtio_net_hdr in front of every frame.
// It is not bound and sees no frame.
func openSocket(settings ...setting) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("making a packet socket: %w%s", err, advice(err))
	}
	settings = append(settings, setting{"asking for virtio_net_hdr", unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1})
	for _, s := range settings {
		if err := unix.SetsockoptInt(fd, s.level, s.option, s.value); err != nil {
			return -1, errors.Join(fmt.Errorf("%s: %w", s.what, err), unix.Close(fd))
		}
	}
	return fd, nil
}

// raiseBuffer sets a socket's buffer beyond the system's limit, if we may, else
// as far as that allows: a smaller one costs frames under load and is no reason to
// fail.
func raiseBuffer(fd, force, plain, bytes int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, bytes)
	}
}

// bind ties a socket to a device, to receive frames of a protocol: 0 is none.
func bind(fd, ifindex int, protocol uint16) error {
	sa := &unix.SockaddrLinklayer{Ifindex: ifindex, Protocol: protocol<<8 | protocol>>8}
	if err := unix.Bind(fd, sa); err != nil {
		return fmt.Errorf("binding: %w%s", err, advice(err))
	}
	return nil
}

// advice tells the operator what to do about an error of opening.
func advice(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return ": grant CAP_NET_RAW, or run as root"
	case errors.Is(err, unix.EAFNOSUPPORT):
		return ": the kernel is built without CONFIG_PACKET"
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return ": the device does not exist in this network namespace"
	case errors.Is(err, unix.ENETDOWN):
		return ": the device is down"
	}
	return ""
}
