package dataplane

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"culvert/dataplane/flow"
	"culvert/dataplane/frame"
	"culvert/fib"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

// maxPorts bounds the port indices. Indices are given out round robin, so that
// an index is not another pod's while a worker still holds the old snapshot.
const maxPorts = 4096

// Poll says what a worker does when no port has frames.
type Poll string

// The poll modes of the configuration.
const (
	PollBusy      Poll = "busy"      // never sleep
	PollAdaptive  Poll = "adaptive"  // spin a little, then sleep until a port has frames
	PollInterrupt Poll = "interrupt" // sleep at once
)

// Config sizes an engine.
type Config struct {
	Workers      int  // at least 1; each is a thread
	Poll         Poll // default adaptive
	FrameSize    int  // bytes a chunk: 2048 or 4096
	RingSize     int  // descriptors a ring, and the most a port's fill ring holds
	Chunks       int  // chunks a worker; 0 = 8 × RingSize, at least minChunks
	FlowCapacity int
	// MSSClamp lowers the maximum segment size of SYNs that go through a tunnel to
	// what fits it.
	MSSClamp bool
	Logger   *slog.Logger
	// Checked verifies every change of a frame's owner and panics on a
	// frame that is used twice: for tests.
	Checked bool
	// Clock is the time since the engine was made; nil means the real one.
	Clock func() time.Duration
}

// minChunks is the least memory of a worker that serves a node's 110 pods.
const minChunks = 16384

// Engine owns the workers, the ports and the flow table. Its methods are safe
// for concurrent use; they belong to the control plane and may block for the
// length of a burst.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	workers []*worker
	flows   *flow.Table
	tables  atomic.Pointer[fib.Snapshot]

	mu       sync.Mutex
	ports    [maxPorts]*port
	next     uint16
	retired  [numPortKinds][drop.Count]uint64 // drops of ports that are gone
	started  atomic.Bool
	closed   bool
	captures []*Capture
	// captureMissed is what the captures that are gone had missed.
	captureMissed uint64
	opening       sync.WaitGroup // ports whose devices are being opened, without mu
	finished      sync.WaitGroup
}

// New makes an engine with an empty table and no ports; Start sets it going.
func New(cfg Config) (*Engine, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Clock == nil {
		start := time.Now()
		cfg.Clock = func() time.Duration { return time.Since(start) }
	}
	if cfg.Poll == "" {
		cfg.Poll = PollAdaptive
	}
	if cfg.Workers < 1 {
		return nil, fmt.Errorf("dataplane: %d workers: at least 1 is needed", cfg.Workers)
	}
	if cfg.Chunks == 0 {
		cfg.Chunks = max(8*cfg.RingSize, minChunks)
	}
	flows, err := flow.New(cfg.FlowCapacity)
	if err != nil {
		return nil, fmt.Errorf("dataplane: flow table of %d: %w", cfg.FlowCapacity, err)
	}
	e := &Engine{cfg: cfg, log: cfg.Logger, flows: flows}
	e.tables.Store(fib.NewTable().Commit())
	for id := range cfg.Workers {
		w, err := newWorker(e, id)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("dataplane: worker %d: %w", id, err), e.Close())
		}
		e.workers = append(e.workers, w)
	}
	return e, nil
}

// Start sets the workers going.
func (e *Engine) Start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started.Load() || e.closed {
		return
	}
	e.started.Store(true)
	moreProcessors(len(e.workers))
	for _, w := range e.workers {
		e.finished.Add(1)
		go func() {
			defer e.finished.Done()
			runtime.LockOSThread() // never unlocked: the thread ends with the worker
			w.run()
		}()
	}
}

// processors is held while GOMAXPROCS changes.
var processors sync.Mutex

// moreProcessors gives the Go scheduler so many processors more, or takes them away. A
// worker keeps one for as long as it is awake, its system calls included: were those
// known to the scheduler, its monitor would look after them every 20 µs (sysmon and
// retake of runtime/proc.go), which took a tenth of the worker's core. What else
// the program does has as many processors as without workers. From then on Go no
// longer follows changes of the cgroup's limit by itself.
func moreProcessors(n int) {
	processors.Lock()
	defer processors.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
}

// Close stops the workers, closes every device and releases the memory. Frames
// that are on their way are given up; an error says if chunks were lost before.
//
// A port that is just being added is waited for: it uses the workers and their memory.
func (e *Engine) Close() error {
	e.mu.Lock()
	again := e.closed
	e.closed = true
	e.mu.Unlock()
	if again {
		return nil
	}
	e.opening.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.workers {
		w.stop()
	}
	e.finished.Wait()
	if e.started.Load() {
		moreProcessors(-len(e.workers))
	}
	var ports []*port
	for i, p := range e.ports {
		if p != nil {
			ports = append(ports, p)
			e.ports[i] = nil
		}
	}
	errs := []error{e.dropPorts(ports...)}
	for _, w := range e.workers {
		errs = append(errs, w.lost(), w.close())
	}
	if e.flows != nil {
		errs = append(errs, e.flows.Close())
	}
	return errors.Join(errs...)
}

// Workers is the number of workers.
func (e *Engine) Workers() int { return len(e.workers) }

// Pool is a worker's memory, to open devices on. Only its region may be used:
// the rest belongs to the worker.
func (e *Engine) Pool(worker int) *frame.Pool { return e.workers[worker].pool }

// FlowTable is the table of connections.
func (e *Engine) FlowTable() *flow.Table { return e.flows }

// Publish makes s the tables of every burst that starts from now on.
func (e *Engine) Publish(s *fib.Snapshot) {
	e.tables.Store(s)
}

// Now is the flow table's clock: seconds since the engine was made.
func (e *Engine) Now() uint32 { return uint32(e.cfg.Clock() / time.Second) }

// Tables is the snapshot published last.
func (e *Engine) Tables() *fib.Snapshot { return e.tables.Load() }

// AddPort opens a device for each of the port's queues and hands it to the
// worker that owns that queue: worker w of n owns the queues w, w+n, w+2n, ….
// It returns the index that adjacencies name. On an error nothing is left open.
func (e *Engine) AddPort(spec PortSpec, open func(worker, queue int) (frame.Device, error)) (uint16, error) {
	if spec.Queues < 1 {
		return 0, fmt.Errorf("adding port %s: it has no queue", spec.Name)
	}
	p := &port{spec: spec, queues: make([]*portQueue, spec.Queues)}
	for _, a := range spec.Addrs {
		p.addrs = append(p.addrs, packet.AddrFrom(a))
	}
	if err := e.reserve(p); err != nil {
		return 0, fmt.Errorf("adding port %s: %w", spec.Name, err)
	}
	defer e.opening.Done()
	// Opening may wait for the kernel: nobody else has to.
	err := e.openQueues(p, open)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil && e.closed {
		err = errors.New("the dataplane is stopped")
	}
	if err != nil {
		e.ports[p.index] = nil
		return 0, errors.Join(fmt.Errorf("adding port %s: %w", spec.Name, err), e.dropPorts(p))
	}
	p.ready = true
	return p.index, nil
}

// reserve gives p an index that nobody else gets meanwhile, and makes Close wait.
func (e *Engine) reserve(p *port) (err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errors.New("the dataplane is stopped")
	}
	if p.index, err = e.freeIndex(); err != nil {
		return err
	}
	e.ports[p.index] = p
	e.opening.Add(1)
	return nil
}

// openQueues opens and starts the port's devices. It leaves those that it got to
// in p.queues.
func (e *Engine) openQueues(p *port, open func(worker, queue int) (frame.Device, error)) error {
	for queue := range p.queues {
		id := queue % len(e.workers)
		dev, err := open(id, queue)
		if err != nil {
			return fmt.Errorf("queue %d: %w", queue, err)
		}
		q := &portQueue{port: p, dev: dev, worker: e.workers[id]}
		p.queues[queue] = q
		if err := q.worker.attach(q); err != nil {
			return fmt.Errorf("starting queue %d: %w", queue, err)
		}
	}
	return nil
}

// freeIndex finds an unused port index, the one longest unused. e.mu is held.
func (e *Engine) freeIndex() (uint16, error) {
	for range maxPorts {
		i := e.next
		e.next = (e.next + 1) % maxPorts
		if e.ports[i] == nil {
			return i, nil
		}
	}
	return 0, fmt.Errorf("all %d port indices are in use", maxPorts)
}

// RemovePort takes the port from its workers, closes its devices and frees the
// frames they held. Remove the routes that lead to it first.
func (e *Engine) RemovePort(index uint16) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	if index >= maxPorts || e.ports[index] == nil || !e.ports[index].ready {
		return fmt.Errorf("removing port %d: there is no such port", index)
	}
	p := e.ports[index]
	e.ports[index] = nil
	if err := e.dropPorts(p); err != nil {
		return fmt.Errorf("removing port %s: %w", p.spec.Name, err)
	}
	return nil
}

// closing is how many devices are closed at once.
const closing = 64

// dropPorts detaches and closes the queues that the ports have. e.mu is held.
//
// The kernel waits for an RCU grace period for every socket, one after the other when
// they are closed so (xsk_unbind_dev, packet_release): they are closed side by side.
func (e *Engine) dropPorts(ports ...*port) error {
	var queues []*portQueue
	for _, p := range ports {
		for _, q := range p.queues {
			if q != nil {
				q.worker.detach(q)
				queues = append(queues, q)
			}
		}
	}
	errs := make([]error, len(queues))
	for first := 0; first < len(queues); first += closing {
		var some sync.WaitGroup
		for i := first; i < min(first+closing, len(queues)); i++ {
			some.Go(func() { errs[i] = queues[i].dev.Close() })
		}
		some.Wait()
	}
	for _, q := range queues {
		e.retire(q)
	}
	return errors.Join(errs...)
}

// retire frees the frames that a closed queue held, and keeps its drops. e.mu is held.
func (e *Engine) retire(q *portQueue) {
	q.worker.reclaim(q)
	kind := q.port.spec.Kind
	for r := range q.counters.drops {
		e.retired[kind][r] += q.counters.drops[r].Load()
	}
	var s frame.DeviceStats
	q.dev.Stats(&s)
	for r, n := range deviceDrops(&s) {
		e.retired[kind][r] += n
	}
}
