package capture

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"culvert/dataplane/frame"
	"culvert/internal/drop"
)

func newRing(t testing.TB, size int) *Ring {
	t.Helper()
	r, err := NewRing(size)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pattern is n bytes that tell where a record was mixed up with another.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed + i*7)
	}
	return b
}

func push(r *Ring, rec Record, data []byte) bool {
	room := r.Reserve(&rec, len(data))
	copy(room, data)
	return room != nil
}

func TestRecordsComeOutAsTheyWentIn(t *testing.T) {
	r := newRing(t, 4096)
	want := Record{
		Data: pattern(1, 77), Time: 1234567890123456789, Length: 65550, Port: 4095, Direction: Drop, Reason: drop.NoRoute,
		SegSize: 1398, HeaderLen: 66, CsumStart: 34, CsumOffset: 16, OuterL4: 42, Flags: frame.CsumPartial | frame.SegTCP4,
	}
	if !push(r, want, want.Data) {
		t.Fatal("an empty ring has no room")
	}
	var got Record
	if r.Peek(&got, r.Head()) {
		t.Error("a record is seen before it is published")
	}
	r.Publish()
	if !r.Peek(&got, r.Head()) {
		t.Fatal("a published record is not seen")
	}
	if !bytes.Equal(got.Data, want.Data) {
		t.Errorf("data %x, want %x", got.Data, want.Data)
	}
	got.Data, want.Data = nil, nil
	if got.Time != want.Time || got.Length != want.Length || got.Port != want.Port || got.Direction != want.Direction ||
		got.Reason != want.Reason || got.SegSize != want.SegSize || got.HeaderLen != want.HeaderLen ||
		got.CsumStart != want.CsumStart || got.CsumOffset != want.CsumOffset || got.OuterL4 != want.OuterL4 || got.Flags != want.Flags {
		t.Errorf("%+v, want %+v", got, want)
	}
	r.Pop()
	if r.Peek(&got, r.Head()) {
		t.Error("a popped record is still there")
	}
}

// A model: what comes out is what went in, in its order, but for what is counted as
// missed, whatever the sizes and whoever is ahead.
func TestRingAgainstAModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	r := newRing(t, 4096)
	var model [][]byte
	missed := uint64(0)
	for round := range 20000 {
		for range rng.IntN(8) {
			n := rng.IntN(300)
			if rng.IntN(20) == 0 {
				n = rng.IntN(r.Most() + 1)
			}
			data := pattern(round, n)
			if push(r, Record{Length: uint32(round)}, data) {
				model = append(model, data)
			} else {
				missed++
			}
		}
		r.Publish()
		head := r.Head()
		for range rng.IntN(8) {
			var rec Record
			if !r.Peek(&rec, head) {
				if len(model) != 0 {
					t.Fatalf("round %d: %d records are not seen", round, len(model))
				}
				break
			}
			if len(model) == 0 || !bytes.Equal(rec.Data, model[0]) {
				t.Fatalf("round %d: a record of %d bytes is not the next", round, len(rec.Data))
			}
			model = model[1:]
			r.Pop()
		}
	}
	if r.Missed() != missed || missed == 0 {
		t.Errorf("%d are counted as missed, %d were refused: none is no test", r.Missed(), missed)
	}
}

// An empty ring always has room for the largest record, wherever it has got to.
func TestLargestRecordAlwaysFits(t *testing.T) {
	r := newRing(t, 4096)
	for i := range 5000 {
		for _, n := range []int{i % 40, r.Most()} {
			if !push(r, Record{}, pattern(i, n)) {
				t.Fatalf("round %d: no room for %d bytes in an empty ring", i, n)
			}
			r.Publish()
			var rec Record
			if !r.Peek(&rec, r.Head()) || !bytes.Equal(rec.Data, pattern(i, n)) {
				t.Fatalf("round %d: %d bytes did not come back", i, n)
			}
			r.Pop()
		}
	}
}

// Two goroutines: for the race detector, and for records that are torn.
func TestRingBetweenGoroutines(t *testing.T) {
	r := newRing(t, 1<<14)
	const records = 100_000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range records {
			push(r, Record{Length: uint32(i)}, pattern(i, i%200))
			r.Publish()
		}
	}()
	read, last := uint64(0), -1
	drain := func() {
		var rec Record
		for head := r.Head(); r.Peek(&rec, head); r.Pop() {
			i := int(rec.Length)
			if i <= last || !bytes.Equal(rec.Data, pattern(i, i%200)) {
				t.Errorf("record %d behind %d, %d bytes", i, last, len(rec.Data))
			}
			last = i
			read++
		}
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		drain()
	}
	if read+r.Missed() != records {
		t.Errorf("%d were read and %d missed of %d", read, r.Missed(), records)
	}
}

func TestOddRingsAreRefused(t *testing.T) {
	for _, size := range []int{0, 2048, 5000, 1<<20 + 1} {
		if _, err := NewRing(size); err == nil {
			t.Errorf("a ring of %d bytes is made", size)
		}
	}
}

func TestPorts(t *testing.T) {
	var p Ports
	p.Add(0)
	p.Add(4095)
	p.Add(77)
	for i := range uint16(MaxPorts) {
		if want := i == 0 || i == 77 || i == 4095; p.Has(i) != want {
			t.Errorf("port %d: %v", i, !want)
		}
	}
}
