package pktgen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"culvert/bench/load"
	"culvert/bench/load/thread"
	"culvert/internal/ethtool"
)

// ErrNoModule says that the kernel has no packet generator now.
var ErrNoModule = errors.New("the kernel's module pktgen is not loaded: modprobe pktgen, where the kernel has it")

// files are those of the calling thread's network namespace: /proc/net would be
// those of the process's first thread.
const files = "/proc/thread-self/net/pktgen"

// Check says whether the machine can run a generator.
func Check() error {
	_, err := os.Stat(files)
	if errors.Is(err, os.ErrNotExist) {
		return ErrNoModule
	}
	return err
}

// Generator is the module at work on one device. The frames come from a thread
// of the kernel's. Its methods are safe from any goroutine.
type Generator struct {
	*thread.Thread
	cfg    load.Config
	worker worker
	name   string // of the device's file

	mu     sync.Mutex
	device *os.File // nil when it is over
	final  status
}

var _ load.Generator = (*Generator)(nil)

// Start configures the module and lets it begin. It switches the device's
// checksum offload off, or the frames' checksums would be left to the receiver.
// The caller must Stop the generator, also when it has come to its bounds by
// itself.
func Start(ctx context.Context, cfg load.Config) (*Generator, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if err := check(&cfg); err != nil {
		return nil, err
	}
	g := &Generator{cfg: cfg, worker: worker{cpu: max(cfg.CPU, 0)}}
	var err error
	if g.Thread, err = thread.Start(ctx, &cfg, g.prepare, g.run); err != nil {
		return nil, fmt.Errorf("pktgen: %w", err)
	}
	return g, nil
}

// prepare tells the module what to send.
func (g *Generator) prepare() error {
	if err := errors.Join(Check(), thread.NoPreemption()); err != nil {
		return err
	}
	i, err := net.InterfaceByIndex(g.cfg.Outs[0].Device)
	if err != nil {
		return fmt.Errorf("device %d: %w", g.cfg.Outs[0].Device, err)
	}
	if err := ethtool.Set(i.Name, false, "tx-checksum-ip-generic", "tx-checksum-ipv4"); err != nil {
		return err
	}
	if err := g.worker.find(); err != nil {
		return err
	}
	g.name = fmt.Sprintf("%s@%d", i.Name, g.worker.cpu) // what follows the @ is no part of the device's name
	if err := tell(g.worker.file(), "rem_device_all"); err != nil {
		return err
	}
	if err := tell(g.worker.file(), "add_device "+g.name); err != nil {
		return err
	}
	for _, command := range commands(&g.cfg) {
		if err := tell(g.name, command); err != nil {
			return errors.Join(err, g.remove())
		}
	}
	if g.device, err = os.Open(filepath.Join(files, g.name)); err != nil {
		return errors.Join(err, g.remove())
	}
	return nil
}

// remove takes the device from the module.
func (g *Generator) remove() error { return tell(g.worker.file(), "rem_device_all") }

// tell writes a command to one of the module's files.
func tell(file, command string) error {
	f, err := os.OpenFile(filepath.Join(files, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(command + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%q: %w", command, err)
	}
	return nil
}

// run is the generator's own thread: it waits for the kernel's.
func (g *Generator) run(ctx context.Context, own *thread.Thread) error {
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-ctx.Done():
			own.InterruptUntil(ended) // the module stops when whoever waits for it is interrupted
		case <-ended:
		}
	}()
	err := tell("pgctrl", "start")
	if err == nil {
		err = g.awaitResult(ctx)
	}
	close(ended)
	<-watched
	g.mu.Lock()
	device := g.device
	g.device = nil
	g.mu.Unlock()
	return errors.Join(err, device.Close(), g.remove())
}

// awaitResult waits for the kernel's thread to come to an end, and keeps what it
// has done. If the context ends it says again and again that it is to stop: whoever
// is interrupted before the thread has begun does not stop it, nor does a single
// word (pktgen_wait_all_threads_run and pktgen_thread_worker of net/core/pktgen.c).
func (g *Generator) awaitResult(ctx context.Context) error {
	var end time.Time
	for ; ; time.Sleep(time.Millisecond) {
		s, err := g.read()
		if err != nil || s.ended() {
			return err
		}
		if ctx.Err() == nil {
			continue // a signal that was not ours
		}
		if end.IsZero() {
			end = time.Now().Add(stopping)
		}
		if time.Now().After(end) {
			return fmt.Errorf("pktgen: %s did not stop within %s: %q", g.name, stopping, s.result)
		}
		if err := tell("pgctrl", "stop"); err != nil {
			return err
		}
	}
}

// stopping is how long the kernel's thread may take to notice that it is to stop.
// Between two frames it may sleep.
const stopping = 10 * time.Second

// read reads the device's file, or what was last read of it.
func (g *Generator) read() (status, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.device == nil {
		return g.final, nil
	}
	if _, err := g.device.Seek(0, io.SeekStart); err != nil {
		return status{}, fmt.Errorf("pktgen: %w", err)
	}
	text, err := io.ReadAll(g.device)
	if err != nil {
		return status{}, fmt.Errorf("pktgen: %w", err)
	}
	s, err := parseStatus(string(text))
	if err == nil {
		g.final = s
	}
	return s, err
}

// Generated is the number of frames made so far, those included that the device
// refused.
func (g *Generator) Generated() (uint64, error) {
	s, err := g.read()
	return s.sent + s.errors, err
}

// CPU is the processor time that the kernel's thread took since the start.
func (g *Generator) CPU() (time.Duration, error) { return g.worker.time() }
