package intake

import (
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// counter is one queue's struct counter of bpf/intake.bpf.c, shared with the
// programs.
type counter struct {
	mem   []byte
	value *intakeCounter
}

// mapCounter maps the counter of a queue.
func mapCounter(m *ebpf.Map, queue int) (counter, error) {
	page := os.Getpagesize()
	size := (int(m.MaxEntries())*int(unsafe.Sizeof(intakeCounter{})) + page - 1) &^ (page - 1)
	mem, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return counter{}, err
	}
	at := unsafe.Add(unsafe.Pointer(unsafe.SliceData(mem)), queue*int(unsafe.Sizeof(intakeCounter{})))
	return counter{mem: mem, value: (*intakeCounter)(at)}, nil
}

// load is the number of big frames: those counted before it are in the socket for
// whoever looks afterwards.
func (c *counter) load() uint32 { return atomic.LoadUint32(&c.value.Big) }

// lost is the number of frames that the programs could not hand on.
func (c *counter) lost() uint64 { return atomic.LoadUint64(&c.value.Lost) }

// unmap ends the sharing. The counter must not be read afterwards.
func (c *counter) unmap() error {
	mem := c.mem
	*c = counter{}
	if mem == nil {
		return nil
	}
	return unix.Munmap(mem)
}
