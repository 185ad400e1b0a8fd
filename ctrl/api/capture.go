package api

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"culvert/internal/drop"
)

// What a line of GET /v1/capture is.
const (
	CaptureBegin  = "BEGIN"  // the first: the workers take part
	CaptureFrame  = "FRAME"  // a frame
	CaptureMissed = "MISSED" // so many frames were not kept, for nobody read in time
	CaptureEnd    = "END"    // the last; without it the agent is gone
)

// CaptureEvent is a line of GET /v1/capture. The answer ends with the request's count
// or duration, or when the client hangs up.
type CaptureEvent struct {
	Event string         `json:"event"`
	Frame *CapturedFrame `json:"frame,omitempty"`
	// Missed counts the frames of a MISSED line.
	Missed uint64 `json:"missed,omitempty"`
	// VXLAN are the UDP ports of tunnels, in the BEGIN line.
	VXLAN []uint16 `json:"vxlan,omitempty"`
	// Reason is why the capture has ended: count, duration, or stopping of the agent.
	Reason string `json:"reason,omitempty"`
}

// CapturedFrame is a frame as the dataplane saw it.
type CapturedFrame struct {
	// Time is that of the burst that the frame was in.
	Time time.Time `json:"time"`
	// Port received or sent the frame, or counts it as dropped.
	Port      string `json:"port"`
	Kind      string `json:"kind"`
	Direction string `json:"direction"` // rx, tx or drop
	// Reason is why it was dropped.
	Reason string `json:"reason,omitempty"`
	// Length is that of the whole frame in bytes, Data as much of it as was kept.
	Length int    `json:"length"`
	Data   []byte `json:"data"`
	// GSO is of a frame that stands for many.
	GSO *GSO `json:"gso,omitempty"`
	// Checksum is what became of one that the sender left to a device: completed, in
	// Data alone, or still partial, because Data has not all of the frame.
	Checksum string `json:"checksum,omitempty"`
}

// GSO says what a big frame is to be cut into.
type GSO struct {
	Type     string `json:"type"`     // tcp4, tcp6 or udp
	Size     int    `json:"size"`     // payload of each segment in bytes
	Segments int    `json:"segments"` // on a wire
}

// CaptureRequest says what is to be captured; a zero field selects all. Filters look
// into tunnels: one packet, the outer or the inner, has to match all of them.
type CaptureRequest struct {
	Ports     []string     // names
	Direction string       // rx, tx, drop or any
	Reason    string       // of drops
	Proto     string       // as FlowFilter's, or arp
	Src       netip.Prefix // the packet's source
	Dst       netip.Prefix
	Addr      netip.Prefix // either end
	Sport     uint16       // the packet's source port
	Dport     uint16
	L4Port    uint16        // either end's port
	Snaplen   int           // bytes of a frame; 0 is DefaultSnaplen
	Count     int           // frames; 0 is DefaultCaptureCount
	Duration  time.Duration // 0 is DefaultCaptureDuration
}

// What bounds a capture that nobody ends, and what may be asked for at most.
const (
	DefaultCaptureCount    = 10_000
	DefaultCaptureDuration = time.Minute
	DefaultSnaplen         = 2048
	MaxCaptureCount        = 100_000_000
	MaxCaptureDuration     = 24 * time.Hour
	MaxSnaplen             = 262_158 // the largest frame
)

// captureDirections are the values of CaptureRequest.Direction.
var captureDirections = []string{"rx", "tx", "drop", "any"}

// CaptureDirections are the directions that a capture may be of.
func CaptureDirections() []string { return slices.Clone(captureDirections) }

// ProtoARP is the one protocol of a capture that is none of IP's.
const ProtoARP = "arp"

// ParseCaptureProto is ParseProto that knows arp.
func ParseCaptureProto(s string) (string, error) {
	if strings.EqualFold(s, ProtoARP) {
		return ProtoARP, nil
	}
	return ParseProto(s)
}

// ParseDropReason reads the name of a drop reason.
func ParseDropReason(s string) (string, error) {
	if r, ok := drop.ByName(s); !ok || r == drop.None {
		return "", fmt.Errorf("%q is no drop reason; 'culvert explain' lists them", s)
	}
	return s, nil
}

// ParseCaptureDirection reads a direction.
func ParseCaptureDirection(s string) (string, error) {
	if !slices.Contains(captureDirections, s) {
		return "", fmt.Errorf("%q is no direction: one of %s is needed", s, strings.Join(captureDirections, ", "))
	}
	return s, nil
}

// Query is the request as the parameters of GET /v1/capture.
func (q *CaptureRequest) Query() url.Values {
	v := url.Values{}
	for _, p := range q.Ports {
		v.Add("port", p)
	}
	set := func(key, value string, is bool) {
		if is {
			v.Set(key, value)
		}
	}
	set("direction", q.Direction, q.Direction != "")
	set("reason", q.Reason, q.Reason != "")
	set("proto", q.Proto, q.Proto != "")
	set("src", q.Src.String(), q.Src.IsValid())
	set("dst", q.Dst.String(), q.Dst.IsValid())
	set("addr", q.Addr.String(), q.Addr.IsValid())
	set("sport", strconv.Itoa(int(q.Sport)), q.Sport != 0)
	set("dport", strconv.Itoa(int(q.Dport)), q.Dport != 0)
	set("l4port", strconv.Itoa(int(q.L4Port)), q.L4Port != 0)
	set("snaplen", strconv.Itoa(q.Snaplen), q.Snaplen != 0)
	set("count", strconv.Itoa(q.Count), q.Count != 0)
	set("duration", q.Duration.String(), q.Duration != 0)
	return v
}

// ParseCaptureRequest reads what Query writes, with the defaults in place of what is
// not there. What it does not know, and what is beyond the bounds, it refuses.
func ParseCaptureRequest(v url.Values) (CaptureRequest, error) {
	q := CaptureRequest{Direction: "any", Snaplen: DefaultSnaplen, Count: DefaultCaptureCount, Duration: DefaultCaptureDuration}
	q.Ports = v["port"] // the only one that may be given several times
	v = maps.Clone(v)
	delete(v, "port")
	if err := setEach(v, q.set); err != nil {
		return CaptureRequest{}, err
	}
	return q, nil
}

func (q *CaptureRequest) set(key, value string) (err error) {
	switch key {
	case "direction":
		q.Direction, err = ParseCaptureDirection(value)
	case "reason":
		q.Reason, err = ParseDropReason(value)
	case "proto":
		q.Proto, err = ParseCaptureProto(value)
	case "src":
		q.Src, err = ParsePrefix(value)
	case "dst":
		q.Dst, err = ParsePrefix(value)
	case "addr":
		q.Addr, err = ParsePrefix(value)
	case "sport":
		q.Sport, err = parsePort(value)
	case "dport":
		q.Dport, err = parsePort(value)
	case "l4port":
		q.L4Port, err = parsePort(value)
	case "snaplen":
		q.Snaplen, err = parseBounded(value, MaxSnaplen)
	case "count":
		q.Count, err = parseBounded(value, MaxCaptureCount)
	case "duration":
		q.Duration, err = ParseCaptureDuration(value)
	default:
		err = errors.New("there is no such option: port, direction, reason, proto, src, dst, addr, sport, dport, l4port, snaplen, count and duration are possible")
	}
	return err
}

// ParseCaptureDuration reads a duration as in 90s or 5m, within the bounds.
func ParseCaptureDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > MaxCaptureDuration {
		return 0, fmt.Errorf("%q is no duration up to 24h, as in 90s or 5m", s)
	}
	return d, nil
}

func parseBounded(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%q is no number from 1 to %d", s, most)
	}
	return n, nil
}

// CaptureStats counts captures.
type CaptureStats struct {
	Running int    `json:"running"`
	Missed  uint64 `json:"missed"` // frames that all captures missed, since the start
}
