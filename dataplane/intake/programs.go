package intake

import (
	"errors"
	"fmt"

	"culvert/dataplane/frame"
	"culvert/dataplane/psock"
	"culvert/dataplane/xsk"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// maxPorts is the number of indices that ports may have, from 0.
const maxPorts = 4096

// load loads the programs and their maps for the intake's near ends, number of
// workers, and chunks of memory.
func load(workers, small, bulk, chunkSize int) (*ebpf.Collection, error) {
	spec, err := loadIntake()
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]int{
		intakeVarWorkers:      workers,
		intakeVarSmallIfindex: small,
		intakeVarBulkIfindex:  bulk,
		intakeVarChunkRoom:    chunkSize - frame.Headroom,
	} {
		if err := spec.Variables[name].Set(uint32(value)); err != nil {
			return nil, fmt.Errorf("setting %s: %w", name, err)
		}
	}
	spec.Programs[intakeProgTakePod].Name = podProgram
	sockets := spec.Maps[intakeMapSockets]
	sockets.MaxEntries = uint32(workers)
	sockets.Key, sockets.Value = nil, nil // the kernel refuses BTF on it, after a grace period
	spec.Maps[intakeMapCounters].MaxEntries = uint32(workers)
	spec.Maps[intakeMapShares].MaxEntries = uint32(workers * maxPorts)
	return ebpf.NewCollection(spec)
}

// install attaches the far ends' programs and opens every worker's Queue. It runs
// inside the intake's namespace.
func (in *Intake) install(cfg *Config) error {
	small, err := prepare(in.name+smallSuffix, false)
	if err != nil {
		return err
	}
	bulk, err := prepare(in.name+bulkSuffix, false)
	if err != nil {
		return err
	}
	for w := range cfg.Workers {
		q, err := in.openQueue(cfg, w, small, bulk)
		if err != nil {
			return fmt.Errorf("worker %d: %w", w, err)
		}
		in.queues = append(in.queues, q)
	}
	if err := in.shareBulk(); err != nil {
		return err
	}
	xdp, err := link.AttachXDP(link.XDPOptions{
		Program: in.coll.Programs[intakeProgToSockets], Interface: small, Flags: link.XDPGenericMode,
	})
	if err != nil {
		return fmt.Errorf("attaching the XDP program: %w", err)
	}
	in.xdp = xdp
	return errors.Join(in.nail(intakeProgTurnBack, small), in.nail(intakeProgCountBig, bulk))
}

// openQueue opens worker w's sockets at the far ends.
func (in *Intake) openQueue(cfg *Config, w, small, bulk int) (*Queue, error) {
	count, err := mapCounter(in.coll.Maps[intakeMapCounters], w)
	if err != nil {
		return nil, fmt.Errorf("mapping the counters: %w", err)
	}
	q := &Queue{counter: count, pool: cfg.Pools[w]}
	q.smallShare.init(count.value, cfg.RingSize)
	q.small, err = cfg.Umems[w].Open(xsk.SocketConfig{
		Ifindex: small, Ifname: in.name + smallSuffix, Queue: w, RingSize: cfg.RingSize, ZeroCopy: xsk.ZeroCopyOff, SG: true,
	})
	if err != nil {
		return nil, errors.Join(err, q.Close())
	}
	if q.big, err = psock.OpenReceiver(in.name+bulkSuffix, bulk, cfg.Pools[w]); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	if err := in.coll.Maps[intakeMapSockets].Put(uint32(w), uint32(q.small.FD())); err != nil {
		return nil, errors.Join(fmt.Errorf("steering queue %d: %w", w, err), q.Close())
	}
	return q, nil
}

// fanout is the number of the packet sockets' group, of which the namespace has
// no other.
const fanout = 1

// shareBulk spreads the big frames over the workers. A frame for worker w has the
// queue mapping w+1, and goes to the member of that number, modulo theirs.
func (in *Intake) shareBulk() error {
	n := len(in.queues)
	if n == 1 {
		return nil
	}
	for i := range n {
		if err := in.queues[(i+n-1)%n].big.JoinFanout(fanout); err != nil {
			return err
		}
	}
	return nil
}
