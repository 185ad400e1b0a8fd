package mixed

import (
	"errors"
	"io"
	"sync"

	"culvert/dataplane/frame"
)

// split is two ways for big frames: in tunnels, and plain.
type split struct{ tunnelled, plain Big }

// Split makes one way of two: frames in VXLAN go the first, all others the second.
func Split(tunnelled, plain Big) Big { return &split{tunnelled, plain} }

// Send implements Big.
func (s *split) Send(f *frame.Frame) Result {
	if f.OuterL4 != 0 {
		return s.tunnelled.Send(f)
	}
	return s.plain.Send(f)
}

// Limits implements Big: each kind of frame as its way takes it.
func (s *split) Limits() frame.Limits {
	t, p := s.tunnelled.Limits(), s.plain.Limits()
	l := frame.Limits{Offload: p.Offload | t.Offload, Chunks: min(t.Chunks, p.Chunks), Bytes: min(t.Bytes, p.Bytes)}
	if p.Offload == 0 { // a NIC that cuts nothing itself
		l.Bytes = t.Bytes
	}
	return l
}

// Close implements Big.
func (s *split) Close() error { return closeBoth(s.tunnelled, s.plain) }

// closeBoth closes two ways side by side: for each the kernel waits for a grace period.
func closeBoth(a, b io.Closer) error {
	var first sync.WaitGroup
	var err error
	first.Go(func() { err = a.Close() })
	other := b.Close()
	first.Wait()
	return errors.Join(err, other)
}
