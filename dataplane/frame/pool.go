package frame

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Headroom is what the kernel leaves free in front of a received frame in its
// chunk: XDP_PACKET_HEADROOM. It holds every tunnel header that Culvert pushes
// and the transmit metadata below them.
const Headroom = 256

// TxMetadataLen is sizeof(struct xsk_tx_metadata): the room that must stay free
// below the first byte of every descriptor that is sent.
const TxMetadataLen = 24

// Owner says who holds a chunk.
type Owner uint16

const (
	ownerFree Owner = iota
	// OwnerWorker holds the chunks of frames that are being processed.
	OwnerWorker
	firstDevice
)

// Pool is the memory of one worker: chunks of equal size in one page-aligned
// region outside the Go heap, a stack of free ones, and the owner of each.
// All methods but Region and ChunkSize belong to the worker's goroutine.
//
// Several descriptors may cite one chunk, when a big frame is cut: Cite adds
// one, and Free, Give and Take count each on its own. All the citations of a
// chunk that are not the worker's are with one device: the segments of a frame
// leave by one port.
type Pool struct {
	mem       []byte
	chunkSize uint64
	mask      uint64 // addr &^ mask is the chunk's base
	shift     uint
	free      []uint32 // stack of chunk numbers
	owner     []Owner  // by chunk number
	cites     []uint16 // by chunk number: descriptors that cite it, beyond the first
	devices   []bool   // by owner tag - firstDevice: in use
	reserve   int      // chunks that AllocSpare leaves
	checked   bool
	mine      []uint16 // checked: by chunk number, the citations that are the worker's
	populated sync.WaitGroup
}

// NewPool maps chunks × chunkSize bytes. chunkSize is 2048 or 4096
// (net/xdp/xdp_umem.c: a power of two up to the page size). With checked set,
// every change of owner is verified and a frame that is freed twice, used
// after it was given away or lost panics: for tests.
func NewPool(chunks int, chunkSize int, checked bool) (*Pool, error) {
	if chunkSize != 2048 && chunkSize != 4096 {
		return nil, fmt.Errorf("frame pool: chunk size %d: must be 2048 or 4096", chunkSize)
	}
	if chunks < 1 || chunks > 1<<20 {
		return nil, fmt.Errorf("frame pool: %d chunks: must be 1 to %d", chunks, 1<<20)
	}
	size := (chunks*chunkSize + 4095) &^ 4095
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("frame pool: mapping %d bytes: %w", size, err)
	}
	p := &Pool{
		mem:       mem,
		chunkSize: uint64(chunkSize),
		mask:      uint64(chunkSize - 1),
		free:      make([]uint32, 0, chunks),
		owner:     make([]Owner, chunks),
		cites:     make([]uint16, chunks),
		checked:   checked,
	}
	if checked {
		p.mine = make([]uint16, chunks)
	}
	for 1<<p.shift != chunkSize {
		p.shift++
	}
	for c := chunks - 1; c >= 0; c-- {
		p.free = append(p.free, uint32(c))
	}
	p.populated.Go(func() { populate(mem) })
	return p, nil
}

// populateStep is how much memory is asked for at once, in bytes: who else needs the
// address space waits no longer than that takes.
const populateStep = 2 << 20

// populate makes the kernel put pages under the memory, a millisecond's work for each
// 2 MB, while the devices are being opened. Whoever is sooner makes the kernel do it then.
func populate(mem []byte) {
	for len(mem) > 0 {
		n := min(populateStep, len(mem))
		if unix.Madvise(mem[:n], unix.MADV_POPULATE_WRITE) != nil {
			return // before Linux 5.14: pages come as they are needed
		}
		mem = mem[n:]
	}
}

// Close unmaps the memory. No device may be open on it.
func (p *Pool) Close() error {
	p.populated.Wait()
	mem := p.mem
	p.mem, p.free, p.owner = nil, nil, nil
	if mem == nil {
		return nil
	}
	return unix.Munmap(mem)
}

// Region is the memory to register with the kernel. Its address does not change.
func (p *Pool) Region() []byte { return p.mem }

// ChunkSize is in bytes.
func (p *Pool) ChunkSize() int { return int(p.chunkSize) }

// Chunks is the number of chunks.
func (p *Pool) Chunks() int { return len(p.owner) }

// FreeChunks is the number of chunks on the free list.
func (p *Pool) FreeChunks() int { return len(p.free) }

// Base is the address of the first byte of addr's chunk.
func (p *Pool) Base(addr uint64) uint64 { return addr &^ p.mask }

// cacheLine is how much the processor gets from memory at once, in bytes.
const cacheLine = 64

// Warm reads a byte of the frame at addr and one in front of it, where tunnel headers
// are pushed, so that both lines come from memory, or from another core, while the worker
// does something else. What it returns is of no use but to keep the compiler from
// leaving the reads out.
func (p *Pool) Warm(addr uint64) uint32 {
	if addr < cacheLine || addr >= uint64(len(p.mem)) {
		return 0 // no frame is there: who looks at it will say so
	}
	return uint32(p.mem[addr]) ^ uint32(p.mem[addr-cacheLine])
}

// HeadroomOf is the number of bytes in front of addr in its chunk that a header
// may be pushed into, the transmit metadata's room left out.
func (p *Pool) HeadroomOf(addr uint64) int { return int(addr&p.mask) - TxMetadataLen }

// TailroomOf is the number of bytes from addr to the end of its chunk.
func (p *Pool) TailroomOf(addr uint64) int { return int(p.chunkSize - addr&p.mask) }

// Alloc takes a chunk from the free list and returns the address where a
// frame's first byte goes by convention: behind the headroom.
func (p *Pool) Alloc() (addr uint64, ok bool) {
	n := len(p.free)
	if n == 0 {
		return 0, false
	}
	c := p.free[n-1]
	p.free = p.free[:n-1]
	if p.checked {
		p.checkFree(c)
		p.mine[c] = 1
	}
	p.owner[c] = OwnerWorker
	return uint64(c)<<p.shift + Headroom, true
}

// SetReserve sets how many free chunks AllocSpare leaves for frames that the
// worker builds itself.
func (p *Pool) SetReserve(chunks int) { p.reserve = chunks }

// AllocSpare is Alloc for chunks to receive into: it stops at the reserve, so that
// idle ports cannot take what answers, segments and fragments are made in.
func (p *Pool) AllocSpare() (addr uint64, ok bool) {
	if len(p.free) <= p.reserve {
		return 0, false
	}
	return p.Alloc()
}

// SpareChunks is the number of chunks that AllocSpare would still give.
func (p *Pool) SpareChunks() int { return max(len(p.free)-p.reserve, 0) }

// Cite notes one more descriptor of the worker's that cites the chunk of addr,
// of which the worker has one already. A chunk has at most maxCites.
func (p *Pool) Cite(addr uint64) bool {
	c := uint32(addr >> p.shift)
	if p.cites[c] == maxCites {
		return false
	}
	if p.checked {
		p.lose(c, "cited")
		p.mine[c] += 2
	}
	p.cites[c]++
	return true
}

// maxCites is far beyond the 84 segments of 48 bytes that begin in one chunk.
const maxCites = 1<<16 - 1

// Free ends one of the worker's descriptors that cite the chunk of addr. The
// last one puts the chunk on the free list.
func (p *Pool) Free(addr uint64) {
	c := uint32(addr >> p.shift)
	if p.checked {
		p.lose(c, "freed")
	}
	if p.cites[c] > 0 {
		p.cites[c]--
		return
	}
	p.owner[c] = ownerFree
	p.free = append(p.free, c)
}

// FreeFrame frees every chunk of the worker's frame.
func (p *Pool) FreeFrame(f *Frame) {
	p.Free(f.Addr)
	for i := range f.Rest {
		p.Free(f.Rest[i].Addr)
	}
}

// Give passes the worker's descriptor that cites the chunk of addr to a device.
func (p *Pool) Give(addr uint64, to Owner) {
	c := uint32(addr >> p.shift)
	if p.checked {
		p.lose(c, "given to a device")
	}
	p.owner[c] = to
}

// Take passes a device's descriptor back to the worker. It reports false, and
// changes nothing, when addr is outside the pool or not that device's: the
// kernel handed out an address it never got, which must not become a frame.
func (p *Pool) Take(addr uint64, from Owner) bool {
	c := addr >> p.shift
	if c >= uint64(len(p.owner)) || p.owner[c] != from || p.checked && p.mine[c] > p.cites[c] {
		if p.checked {
			panic(fmt.Sprintf("frame pool: device %d returned address %#x that it does not own", from, addr))
		}
		return false
	}
	if p.checked {
		p.mine[c]++
	}
	if p.cites[c] == 0 {
		p.owner[c] = OwnerWorker
	}
	return true
}

// NewOwner reserves an owner tag for a device.
func (p *Pool) NewOwner() Owner {
	for i, used := range p.devices {
		if !used {
			p.devices[i] = true
			return firstDevice + Owner(i)
		}
	}
	p.devices = append(p.devices, true)
	return firstDevice + Owner(len(p.devices)-1)
}

// Reclaim frees every chunk that a closed device held and releases its tag. It
// returns how many there were. It walks all chunks: for removal of a port only.
// The worker has no descriptor left that cites one of them.
func (p *Pool) Reclaim(from Owner) int {
	n := 0
	for c, o := range p.owner {
		if o == from {
			if p.checked && p.mine[c] != 0 {
				panic(fmt.Sprintf("frame pool: chunk %d reclaimed from device %d while the worker has %d descriptors of it", c, from, p.mine[c]))
			}
			p.owner[c], p.cites[c] = ownerFree, 0
			p.free = append(p.free, uint32(c))
			n++
		}
	}
	p.devices[from-firstDevice] = false
	return n
}

// Held is the number of chunks that o holds, by walking all: for tests and reports.
func (p *Pool) Held(o Owner) int {
	n := 0
	for _, have := range p.owner {
		if have == o {
			n++
		}
	}
	return n
}

func (p *Pool) checkFree(c uint32) {
	if got := p.owner[c]; got != ownerFree || p.cites[c] != 0 {
		panic(fmt.Sprintf("frame pool: chunk %d allocated while its owner is %d and it is cited %d times more", c, got, p.cites[c]))
	}
}

// lose counts one descriptor of the worker's less.
func (p *Pool) lose(c uint32, what string) {
	if int(c) >= len(p.owner) {
		panic(fmt.Sprintf("frame pool: chunk %d of %d %s", c, len(p.owner), what))
	}
	if p.mine[c] == 0 {
		panic(fmt.Sprintf("frame pool: chunk %d %s while the worker has no descriptor of it (owner %d)", c, what, p.owner[c]))
	}
	p.mine[c]--
}
