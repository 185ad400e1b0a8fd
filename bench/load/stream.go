package load

// Stream is the order in which a Plan's frames are sent. It is not safe for
// concurrent use.
type Stream struct {
	plan *Plan
	turn uint32 // of the order
	size int    // of the lengths
	// A new flow takes the place of the oldest: of the first replaced places
	// once more than of the others, whose flow is base plus the place.
	base, replaced uint32
	since          uint32 // frames since the last new flow
}

// Stream begins to send the plan's frames.
func (p *Plan) Stream() *Stream { return &Stream{plan: p} }

// Next is the flow of the next frame, and its whole length.
func (s *Stream) Next() (flow uint32, n int) {
	n = s.plan.Lens[s.size]
	if s.size++; s.size == len(s.plan.Lens) {
		s.size = 0
	}
	return s.next(), n
}

func (s *Stream) next() uint32 {
	p := s.plan
	flows := uint32(p.Flows)
	if p.Every > 0 {
		if s.since++; s.since == p.Every {
			s.since = 0
			return s.fresh(flows)
		}
	}
	place, period := s.turn, flows
	if p.Order != nil {
		place, period = p.Order[s.turn], uint32(len(p.Order))
	}
	if s.turn++; s.turn == period {
		s.turn = 0
	}
	if place < s.replaced {
		place += flows
	}
	return s.base + place
}

// fresh is a flow that was not sent before.
func (s *Stream) fresh(flows uint32) uint32 {
	flow := s.base + flows + s.replaced
	if s.replaced++; s.replaced == flows {
		s.replaced = 0
		s.base += flows
	}
	return flow
}
