package xsk

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"culvert/dataplane/frame"

	"golang.org/x/sys/unix"
)

// Umem is one worker's memory as the kernel knows it.
//
// The kernel shares a registration between sockets only if they agree on its
// mode: zero-copy and multi-buffer belong to the UMEM, not to the socket
// (net/xdp/xsk_buff_pool.c, xp_assign_dev_shared). So the same memory is
// registered once for each class of sockets that exists, and which chunk is
// whose is our business alone.
//
// A new socket joins its class by naming any bound member of it, the anchor.
// When none is left, or none is bound because their devices are gone, it
// registers the memory afresh.
//
// Open and the sockets' Close are safe from any goroutine. A Umem reads the
// pool's region and chunk size and nothing else of it.
type Umem struct {
	pool *frame.Pool

	mu      sync.Mutex
	members map[class][]*Socket
}

// class is what the sockets of one registration have in common.
type class struct {
	zeroCopy bool
	sg       bool
}

// NewUmem prepares the sharing of pool. The kernel learns of it with the first
// socket. The pool must outlive the sockets.
func NewUmem(pool *frame.Pool) *Umem {
	return &Umem{pool: pool, members: make(map[class][]*Socket)}
}

// Zero-copy policies of a SocketConfig.
const (
	ZeroCopyAuto = "auto" // where the device can, else copy
	ZeroCopyOn   = "on"   // or fail
	ZeroCopyOff  = "off"
)

// SocketConfig describes a socket to open.
type SocketConfig struct {
	Ifindex int
	Ifname  string // for messages
	Queue   int
	// RingSize is the number of descriptors in the receive and the transmit
	// ring: a power of two from 64 to 32768. The fill and completion rings
	// have twice as many.
	RingSize int
	// ZeroCopy is ZeroCopyAuto (also when empty), ZeroCopyOn or ZeroCopyOff.
	ZeroCopy string
	// SG asks for multi-buffer: frames of several chunks in both directions.
	// Socket.Multibuffer says whether the kernel has it.
	SG bool
}

// Waiting for a queue that is in use: the kernel frees a closed socket's queue
// in a work item after close has returned (net/xdp/xsk_buff_pool.c,
// xp_put_pool), so a busy queue may be free in a moment.
const (
	busyFirst = time.Millisecond
	busyTotal = time.Second
)

// Open makes a socket bound to a queue of a device in the network namespace of
// the calling thread. In mode auto it tries zero-copy before copy, and
// multi-buffer before single buffers. While the queue is busy it tries again
// for up to a second. On an error nothing is left open.
func (u *Umem) Open(cfg SocketConfig) (*Socket, error) {
	if n := cfg.RingSize; n < 64 || n > 32768 || n&(n-1) != 0 {
		return nil, fmt.Errorf("xsk: %s queue %d: ring size %d: must be a power of two from 64 to 32768",
			cfg.Ifname, cfg.Queue, n)
	}
	classes, err := candidates(cfg)
	if err != nil {
		return nil, fmt.Errorf("xsk: %s queue %d: %w", cfg.Ifname, cfg.Queue, err)
	}
	for i, c := range classes {
		var s *Socket
		if s, err = u.openClass(cfg, c); err == nil {
			return s, nil
		}
		if i+1 == len(classes) || !worthFallback(err) {
			break
		}
	}
	return nil, fmt.Errorf("xsk: opening %s queue %d: %w%s", cfg.Ifname, cfg.Queue, err, advice(err))
}

// openClass opens a socket of class c, waiting for a busy queue.
func (u *Umem) openClass(cfg SocketConfig, c class) (*Socket, error) {
	for waited, pause := time.Duration(0), busyFirst; ; pause *= 2 {
		s, err := u.tryOpen(cfg, c)
		if err == nil || !errors.Is(err, unix.EBUSY) || waited >= busyTotal {
			return s, err
		}
		time.Sleep(pause)
		waited += pause
	}
}

// tryOpen joins an existing registration of class c, or makes one. The lock
// keeps the anchor open.
func (u *Umem) tryOpen(cfg SocketConfig, c class) (*Socket, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, anchor := range u.members[c] {
		s, err := openSocket(u, cfg, c, anchor)
		if errors.Is(err, unix.EBADF) {
			continue // the anchor's device is gone: it is no longer bound
		}
		return u.admit(s, err)
	}
	return u.admit(openSocket(u, cfg, c, nil))
}

// admit makes an opened socket a member. u.mu is held.
func (u *Umem) admit(s *Socket, err error) (*Socket, error) {
	if err == nil {
		u.members[s.class] = append(u.members[s.class], s)
	}
	return s, err
}

// leave ends s's membership before it closes.
func (u *Umem) leave(s *Socket) {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := u.members[s.class]
	for i := range list {
		if list[i] == s {
			u.members[s.class] = append(list[:i:i], list[i+1:]...)
			return
		}
	}
}

// candidates are the classes to try for cfg, best first.
func candidates(cfg SocketConfig) ([]class, error) {
	var list []class
	switch cfg.ZeroCopy {
	case ZeroCopyOff:
	case "", ZeroCopyAuto, ZeroCopyOn:
		f := queryFeatures(cfg.Ifindex)
		if cfg.ZeroCopy == ZeroCopyOn && f.known && !f.zeroCopy {
			return nil, errNoZeroCopy
		}
		if f.zeroCopy || !f.known {
			if cfg.SG && (f.zeroCopySegments > 1 || !f.known) {
				list = append(list, class{zeroCopy: true, sg: true})
			}
			list = append(list, class{zeroCopy: true})
		}
	default:
		return nil, fmt.Errorf("zero-copy %q: must be auto, on or off", cfg.ZeroCopy)
	}
	if cfg.ZeroCopy == ZeroCopyOn {
		return list, nil
	}
	if cfg.SG {
		list = append(list, class{sg: true})
	}
	return append(list, class{}), nil
}

var errNoZeroCopy = errors.New("the driver has no AF_XDP zero-copy mode; set zeroCopy to auto or off")

// CheckZeroCopy returns an error if the driver of a device, in the network namespace
// of the calling thread, says that it has no zero copy. A kernel that cannot tell
// (before 6.3) says nothing: then opening a socket does.
func CheckZeroCopy(ifindex int) error {
	if f := queryFeatures(ifindex); f.known && !f.zeroCopy {
		return errNoZeroCopy
	}
	return nil
}

// worthFallback reports whether a simpler class could succeed where err was.
func worthFallback(err error) bool {
	for _, final := range []error{unix.EBUSY, unix.ENODEV, unix.EPERM, unix.EACCES, unix.EMFILE, unix.ENFILE,
		unix.ENOBUFS, unix.EAFNOSUPPORT} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

// advice tells the operator what to do about an errno of opening a socket.
func advice(err error) string {
	for _, a := range []struct {
		errno error
		what  string
	}{
		{unix.EBUSY, "another AF_XDP socket uses the queue: stop its program (find it with 'lsof | grep XDP')"},
		{unix.ENOBUFS, "the locked-memory limit is too low: raise 'ulimit -l' or grant CAP_IPC_LOCK"},
		{unix.EPERM, "grant CAP_NET_RAW, or run as root"},
		{unix.ENODEV, "the device does not exist in this network namespace"},
		{unix.EAFNOSUPPORT, "the kernel is built without CONFIG_XDP_SOCKETS"},
		{unix.EOPNOTSUPP, "the driver lacks the mode: set zeroCopy to auto or off"},
		{unix.EINVAL, "the device may have fewer queues ('ethtool -l')"},
		{unix.ENOMEM, "the kernel is out of memory: lower the ring or pool size"},
	} {
		if errors.Is(err, a.errno) {
			return ": " + a.what
		}
	}
	return ""
}
