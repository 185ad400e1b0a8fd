package tap

import (
	"errors"
	"fmt"

	"culvert/dataplane/vnet"

	"golang.org/x/sys/unix"
)

// flags are those of every queue of a pod's TAP: a device keeps what it was
// made with, and its first queue in each process sets the rest anew
// (drivers/net/tun.c, tun_set_iff).
const flags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE

// Of include/uapi/linux/if_tun.h: what the reader of a TAP takes unfinished.
const (
	offCsum   = 0x01
	offTSO4   = 0x02
	offTSO6   = 0x04
	offTSOECN = 0x08
	offUSO4   = 0x20
	offUSO6   = 0x40
	offTunnel = 0x80 | 0x100 // with and without outer checksum, since 6.17

	offTCP = offCsum | offTSO4 | offTSO6 | offTSOECN
	offUDP = offUSO4 | offUSO6 // since 6.2, together only
)

// noOwner is a user that nobody is, as the owner of a device: without one, any
// process of the pod that can open /dev/net/tun could take a queue; with one,
// CAP_NET_ADMIN is needed (tun_not_capable).
const noOwner = 1<<32 - 2

// ErrExists says that the namespace has a device of that name.
var ErrExists = errors.New("device exists")

// ErrNotOurs says that there is no TAP of that name, or one that Make has not made.
var ErrNotOurs = errors.New("no TAP device of Culvert's making")

// Made is a device that was just made, held until Close: it has carrier, so
// that what is configured on it takes effect at once.
type Made struct{ fd int }

// Close lets go of the device, which stays.
func (m *Made) Close() error { return unix.Close(m.fd) }

// Make makes a multi-queue TAP device in the network namespace of the calling
// thread that stays when the process ends, until it is deleted or its namespace
// ends. It has no queue while nobody has opened it: what is sent to it is lost.
func Make(name string) (*Made, error) {
	fd, err := spreading(func() (int, error) { return attach(name, flags|unix.IFF_TUN_EXCL) })
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("tap: making %s: %w", name, ErrExists)
	}
	if err != nil {
		return nil, fmt.Errorf("tap: making %s: %w%s", name, err, advice(err))
	}
	err = unix.IoctlSetInt(fd, unix.TUNSETOWNER, noOwner)
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	}
	if err == nil {
		_, err = setOffload(fd, offUDP)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tap: making %s: %w", name, err), unix.Close(fd))
	}
	return &Made{fd}, nil
}

// join opens one more queue of a device that Make has made, in the network
// namespace of the calling thread. udp says whether its reader and writer may
// use UDP segmentation.
func join(name string) (fd int, udp bool, err error) {
	if fd, err = spreading(func() (int, error) { return attach(name, flags) }); err != nil {
		if errors.Is(err, unix.EINVAL) { // of that name, but no such TAP
			err = fmt.Errorf("%w (%w)", ErrNotOurs, err)
		}
		return -1, false, err
	}
	// The kernel makes a device that it does not find; that one is not
	// persistent, and ends here.
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr)
	}
	if err == nil && ifr.Uint16()&iffPersist == 0 {
		err = ErrNotOurs
	}
	if err == nil {
		udp, err = setOffload(fd, offUDP)
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnet.Len)
	}
	if err != nil {
		return -1, false, errors.Join(err, unix.Close(fd))
	}
	return fd, udp, nil
}

// iffPersist is IFF_PERSIST of include/uapi/linux/if_tun.h.
const iffPersist = 0x0800

// attach opens /dev/net/tun and makes the descriptor a queue of a device, which
// is made if there is none. Reads and writes do not block, and Go's poller has
// no part in them.
func attach(name string, flags uint16) (fd int, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// setOffload says that frames may come with partial checksums and as big TCP
// segments, and of extra what the kernel knows: it answers an unknown bit with
// EINVAL (set_offload).
func setOffload(fd, extra int) (all bool, err error) {
	err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offTCP|extra)
	if err == nil || !errors.Is(err, unix.EINVAL) {
		return err == nil, err
	}
	return false, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offTCP)
}

// advice tells the operator what to do about an error of attach.
func advice(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return ": the kernel needs TUN/TAP ('modprobe tun'), and culvertd's container /dev/net/tun"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return ": grant CAP_NET_ADMIN and access to /dev/net/tun, or run as root"
	}
	return ""
}
