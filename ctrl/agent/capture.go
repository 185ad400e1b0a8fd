package agent

import (
	"context"
	"errors"
	"math"
	"time"

	"culvert/ctrl/api"
	"culvert/dataplane"
	"culvert/dataplane/capture"
	"culvert/dataplane/frame"
	"culvert/internal/drop"
	"culvert/internal/packet"
)

const (
	// captureEvery is how often the rings of a capture are read.
	captureEvery = 10 * time.Millisecond
	// captureSettle is how old a frame is when it is told: the workers show theirs
	// burst by burst, and they are told in the order of their time.
	captureSettle = 5 * time.Millisecond
	// captureBatch is how many frames are written at once.
	captureBatch = 64
)

// Capture implements apiserver.Backend.
func (a *Agent) Capture(ctx context.Context, req api.CaptureRequest, emit func([]api.CaptureEvent) error) error {
	spec, err := captureSpec(&req)
	if err != nil {
		return err
	}
	c, err := a.engine.StartCapture(spec)
	var none *dataplane.NoPortError
	switch {
	case errors.As(err, &none):
		return api.NotFound("%v", err)
	case err != nil:
		return api.Unavailable("%v", err)
	}
	defer c.Close()
	end := time.NewTimer(req.Duration)
	defer end.Stop()
	tick := time.NewTicker(captureEvery)
	defer tick.Stop()
	s := captureStream{c: c, left: req.Count, emit: emit}
	if err := emit([]api.CaptureEvent{{Event: api.CaptureBegin, VXLAN: c.VXLAN()}}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.ending:
			return s.finish("stopping")
		case <-end.C:
			return s.finish("duration")
		case now := <-tick.C:
			if err := s.tell(now.Add(-captureSettle).UnixNano()); err != nil {
				return err
			}
			if s.left == 0 {
				return s.finish("count")
			}
		}
	}
}

// captureSpec is the request as the dataplane has it.
func captureSpec(req *api.CaptureRequest) (*dataplane.CaptureSpec, error) {
	s := &dataplane.CaptureSpec{
		Ports: req.Ports, Snaplen: req.Snaplen, Directions: capture.Any,
		Match: capture.Match{Src: req.Src, Dst: req.Dst, Addr: req.Addr, Sport: req.Sport, Dport: req.Dport, Port: req.L4Port},
	}
	for _, d := range []capture.Direction{capture.Rx, capture.Tx, capture.Drop} {
		if req.Direction == d.String() {
			s.Directions = capture.Of(d)
		}
	}
	if req.Reason != "" {
		if req.Direction == capture.Rx.String() || req.Direction == capture.Tx.String() {
			return nil, api.Invalid("reason: only dropped frames have one, and the direction is %s", req.Direction)
		}
		s.Reason, _ = drop.ByName(req.Reason)
		s.Directions = capture.Of(capture.Drop)
	}
	switch req.Proto {
	case "":
	case api.ProtoARP:
		s.Match.Proto, s.Match.ByProto = capture.ProtoARP, true
	default:
		for number := range 256 {
			if packet.ProtoName(uint8(number)) == req.Proto {
				s.Match.Proto, s.Match.ByProto = uint16(number), true
			}
		}
	}
	return s, nil
}

// captureStream tells a client what a capture sees.
type captureStream struct {
	c      *dataplane.Capture
	left   int    // frames until the count
	missed uint64 // as it was told
	emit   func([]api.CaptureEvent) error
	batch  []api.CaptureEvent
}

// tell emits what is older than a time.
func (s *captureStream) tell(before int64) error {
	for full := true; full && s.left > 0; {
		s.batch = s.batch[:0]
		s.c.Read(before, func(r *capture.Record) bool {
			s.batch = append(s.batch, api.CaptureEvent{Event: api.CaptureFrame, Frame: capturedFrame(s.c, r)})
			s.left--
			return s.left > 0 && len(s.batch) < captureBatch
		})
		full = len(s.batch) == captureBatch
		if missed := s.c.Missed(); missed > s.missed {
			s.batch = append(s.batch, api.CaptureEvent{Event: api.CaptureMissed, Missed: missed - s.missed})
			s.missed = missed
		}
		if len(s.batch) == 0 {
			return nil
		}
		if err := s.emit(s.batch); err != nil {
			return err
		}
	}
	return nil
}

// finish emits what is left to tell, and the last line.
func (s *captureStream) finish(reason string) error {
	if err := s.tell(math.MaxInt64); err != nil {
		return err
	}
	return s.emit([]api.CaptureEvent{{Event: api.CaptureEnd, Reason: reason}})
}

// capturedFrame copies a record, its checksums completed.
func capturedFrame(c *dataplane.Capture, r *capture.Record) *api.CapturedFrame {
	port := c.PortName(r.Port)
	f := &api.CapturedFrame{
		Time: time.Unix(0, r.Time).UTC(), Port: port.Name, Kind: port.Kind.String(), Direction: r.Direction.String(),
		Length: int(r.Length), Checksum: r.Settle(c.VXLAN()).String(),
	}
	f.Data = append([]byte{}, r.Data...)
	if r.Direction == capture.Drop {
		f.Reason = r.Reason.String()
	}
	if r.SegSize != 0 {
		f.GSO = &api.GSO{Size: int(r.SegSize), Segments: r.Segments(), Type: segmentType(r.Flags)}
	}
	return f
}

func segmentType(f frame.Flags) string {
	switch {
	case f&frame.SegUDP != 0:
		return "udp"
	case f&frame.SegTCP6 != 0:
		return "tcp6"
	}
	return "tcp4"
}

// CaptureStats implements metrics.Source.
func (a *Agent) CaptureStats() api.CaptureStats {
	running, missed := a.engine.CaptureStats()
	return api.CaptureStats{Running: running, Missed: missed}
}
