package intake

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"

	"culvert/dataplane/frame"
	"culvert/dataplane/xsk"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Config describes an intake. Worker w receives into Pools[w], which Umems[w] stands
// for.
type Config struct {
	Workers int
	// RingSize is the number of small frames that can wait for a worker, of all
	// ports together: a power of two from 64 to 32768.
	RingSize int
	Umems    []*xsk.Umem
	Pools    []*frame.Pool
	// Prefix begins the names of the devices, with at most 8 letters; "cvi" if
	// empty.
	Prefix string
}

// Names of the devices: the prefix, six digits, and which of the two it is.
const (
	defaultPrefix = "cvi"
	maxPrefix     = 8
	smallSuffix   = "s"
	bulkSuffix    = "b"
)

// Intake is where the frames of many devices arrive: a Queue for each worker, and
// an Attachment for each device.
type Intake struct {
	name   string // of the devices, without the suffix
	space  namespace
	coll   *ebpf.Collection
	xdp    link.Link
	veths  []int // near ends
	queues []*Queue

	mu      sync.Mutex
	taken   map[*Attachment]struct{}
	tunnels *tunnelPorts
	// prefixes are those of the pods, for all uplinks.
	prefixes *xsk.Prefixes
	own      *xsk.Own // likewise, of the node
	closed   bool
}

// New makes an intake with the near ends of its veths in the network namespace of
// the calling thread, where devices are attached to it later. On an error nothing is
// left.
func New(cfg Config) (*Intake, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = defaultPrefix
	}
	if cfg.Workers < 1 || len(cfg.Umems) != cfg.Workers || len(cfg.Pools) != cfg.Workers || len(cfg.Prefix) > maxPrefix {
		return nil, fmt.Errorf("intake: %d workers with %d memories and %d pools, device prefix %q: "+
			"each worker needs one of both, and a prefix has at most %d letters",
			cfg.Workers, len(cfg.Umems), len(cfg.Pools), cfg.Prefix, maxPrefix)
	}
	runtime.LockOSThread() // netlink and BPF act in the thread's namespace
	defer runtime.UnlockOSThread()
	space, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("intake: %w", err)
	}
	in := &Intake{
		name:  fmt.Sprintf("%s%06x", cfg.Prefix, rand.Uint32N(1<<24)),
		space: space,
		taken: make(map[*Attachment]struct{}),
	}
	if err := in.open(&cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("intake: %w", err), in.Close())
	}
	return in, nil
}

func (in *Intake) open(cfg *Config) (err error) {
	if in.tunnels, err = newTunnelPorts(in.space); err != nil {
		return err
	}
	for _, suffix := range []string{smallSuffix, bulkSuffix} {
		index, err := makeVeth(in.name+suffix, cfg.Workers, in.space)
		if err != nil {
			return err
		}
		in.veths = append(in.veths, index)
	}
	if in.coll, err = load(cfg.Workers, in.veths[0], in.veths[1], cfg.Pools[0].ChunkSize()); err != nil {
		return fmt.Errorf("loading the programs: %w: Culvert needs Linux 6.6 or later and CAP_BPF with CAP_NET_ADMIN", err)
	}
	in.prefixes, in.own = xsk.NewPrefixes(in.coll), xsk.NewOwn(in.coll)
	if err := in.nail(intakeProgToBulk, in.veths[0]); err != nil {
		return err
	}
	return in.space.do(func() error { return in.install(cfg) })
}

// Queue is worker w's end.
func (in *Intake) Queue(w int) *Queue { return in.queues[w] }

// Close detaches every device, closes the queues, which their workers must have let
// go of, and removes the veths. Chunks that queues held are the pools' to Reclaim
// afterwards. It is called in the network namespace that New was called in.
func (in *Intake) Close() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return nil
	}
	in.closed = true
	var errs []error
	for a := range in.taken {
		errs = append(errs, a.detach())
	}
	for _, q := range in.queues {
		errs = append(errs, q.Close())
	}
	for _, index := range in.veths {
		errs = append(errs, removeVeth(index))
	}
	if err := errors.Join(append(errs, in.release())...); err != nil {
		return fmt.Errorf("intake: closing: %w", err)
	}
	return nil
}

// Leave is as much of Close as is needed before the process ends, and as quick as can
// be. The pods' programs stay, as when the process is killed, and drop what the pods
// send until another intake attaches to them; the veths go with the namespace, which
// is when the process has ended. The queues are the engine's to close, before, after
// or meanwhile.
func (in *Intake) Leave() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return nil
	}
	in.closed = true
	var errs []error
	for a := range in.taken {
		if a.uplink {
			errs = append(errs, a.off())
		}
	}
	if err := errors.Join(append(errs, in.release())...); err != nil {
		return fmt.Errorf("intake: leaving: %w", err)
	}
	return nil
}

// release closes what belongs to no device and no queue.
func (in *Intake) release() error {
	var errs []error
	if in.xdp != nil {
		errs = append(errs, in.xdp.Close())
	}
	if in.coll != nil {
		in.coll.Close()
	}
	if in.tunnels != nil {
		errs = append(errs, in.tunnels.close())
	}
	return errors.Join(append(errs, in.space.close())...)
}
