package agent

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/dataplane"
	"culvert/dataplane/frame"
	"culvert/internal/memport"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// capturing is an agent with nothing but an engine, that has one pod's port, and a
// frame of the pod's that has no route.
func capturing(t *testing.T) (*Agent, *memport.Device, []byte) {
	t.Helper()
	e, err := dataplane.New(dataplane.Config{Workers: 1, FrameSize: 2048, RingSize: 64, Chunks: 1024, FlowCapacity: 1024})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	dev := memport.New(e.Pool(0))
	const mac, gateway = "0a:58:0a:f4:01:02", "ee:ee:ee:ee:ee:ee"
	peer, _ := packet.ParseMAC(mac)
	spec := dataplane.PortSpec{Name: "cva", Kind: dataplane.PortVeth, Queues: 1, MTU: 1450, MAC: dataplane.GatewayMAC, PeerMAC: peer}
	if _, err := e.AddPort(spec, func(int, int) (frame.Device, error) { return dev, nil }); err != nil {
		t.Fatal(err)
	}
	e.Start()
	f := kit.Frame(t, kit.Eth(mac, gateway), kit.IP4("10.244.1.2", "10.244.2.2"), kit.UDP(4711, 80), kit.Payload(40))
	return &Agent{engine: e, ending: make(chan struct{})}, dev, f
}

// request is a capture with the defaults, changed.
func request(change func(*api.CaptureRequest)) api.CaptureRequest {
	q, _ := api.ParseCaptureRequest(nil)
	change(&q)
	return q
}

// collect runs a capture to its end, and calls begun when it has begun.
func collect(t *testing.T, a *Agent, q api.CaptureRequest, begun func()) (events []api.CaptureEvent, err error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	err = a.Capture(ctx, q, func(more []api.CaptureEvent) error {
		events = append(events, more...)
		if len(more) > 0 && more[0].Event == api.CaptureBegin {
			begun()
		}
		return nil
	})
	if ctx.Err() != nil {
		t.Fatal("the capture did not end by itself")
	}
	return events, err
}

func last(events []api.CaptureEvent) api.CaptureEvent { return events[len(events)-1] }

func TestCaptureEndsWithItsCount(t *testing.T) {
	a, dev, f := capturing(t)
	q := request(func(q *api.CaptureRequest) { q.Count = 7; q.Dport = 80 })
	events, err := collect(t, a, q, func() { dev.Inject(f, f, f, f) }) // each is received and dropped: 8
	if err != nil || len(events) != 9 || last(events).Event != api.CaptureEnd || last(events).Reason != "count" {
		t.Fatalf("%d events, %v: %+v", len(events), err, events)
	}
	reasons := map[string]int{}
	for i, e := range events[1:8] {
		got := e.Frame
		reasons[got.Direction+" "+got.Reason]++
		if got.Port != "cva" || got.Kind != "veth" || got.Length != len(f) || !bytes.Equal(got.Data, f) {
			t.Errorf("frame %d: %+v", i, got)
		}
		if since := time.Since(got.Time); since < 0 || since > time.Minute {
			t.Errorf("frame %d was seen %v ago", i, since)
		}
	}
	if want := map[string]int{"rx ": 4, "drop spoofed_source": 3}; !maps.Equal(reasons, want) {
		t.Errorf("%v, want %v", reasons, want)
	}
	if s := a.CaptureStats(); s.Running != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCaptureEndsWithItsDuration(t *testing.T) {
	a, dev, f := capturing(t)
	q := request(func(q *api.CaptureRequest) {
		q.Duration = 300 * time.Millisecond
		q.Reason = "spoofed_source"
		q.Snaplen = 20
	})
	events, err := collect(t, a, q, func() { dev.Inject(f) })
	if err != nil || len(events) != 3 || last(events).Reason != "duration" {
		t.Fatalf("%d events, %v: %+v", len(events), err, events)
	}
	if got := events[1].Frame; got.Direction != "drop" || got.Reason != "spoofed_source" || got.Length != len(f) || !bytes.Equal(got.Data, f[:20]) {
		t.Errorf("%+v", got)
	}
}

func TestCaptureEndsWithTheAgentAndWithItsClient(t *testing.T) {
	a, _, _ := capturing(t)
	events, err := collect(t, a, request(func(*api.CaptureRequest) {}), func() { close(a.ending) })
	if err != nil || last(events).Reason != "stopping" {
		t.Errorf("%+v, %v", events, err)
	}
	a, dev, f := capturing(t)
	ctx, stop := context.WithCancel(t.Context())
	if err := a.Capture(ctx, request(func(*api.CaptureRequest) {}), func([]api.CaptureEvent) error { stop(); return nil }); err != nil {
		t.Errorf("a client that goes is no error: %v", err)
	}
	gone := errors.New("gone")
	err = a.Capture(t.Context(), request(func(*api.CaptureRequest) {}), func(e []api.CaptureEvent) error {
		if e[0].Event == api.CaptureBegin {
			dev.Inject(f)
			return nil
		}
		return gone
	})
	if !errors.Is(err, gone) || a.CaptureStats().Running != 0 {
		t.Errorf("%v, %+v", err, a.CaptureStats())
	}
}

// Frames that come while the client does not read are told as missed, and counted.
func TestCaptureTellsWhatItMissed(t *testing.T) {
	a, dev, f := capturing(t)
	big := slices.Concat(f, make([]byte, 1400))
	const frames = 6000
	q := request(func(q *api.CaptureRequest) { q.Duration = 2 * time.Second; q.Direction = "rx" })
	got, missed, held := 0, uint64(0), false
	err := a.Capture(t.Context(), q, func(events []api.CaptureEvent) error {
		for _, e := range events {
			switch e.Event {
			case api.CaptureBegin:
				dev.Inject(slices.Repeat([][]byte{big}, frames)...)
			case api.CaptureFrame:
				got++
			case api.CaptureMissed:
				missed += e.Missed
			}
		}
		if !held && got > 0 {
			held = true
			for dev.Pending() > 0 { // the worker has them all before this client reads on
				time.Sleep(time.Millisecond)
			}
		}
		return nil
	})
	if err != nil || missed == 0 || uint64(got)+missed != frames || a.CaptureStats().Missed != missed {
		t.Errorf("%d frames were told and %d missed of %d; counted %+v; %v", got, missed, frames, a.CaptureStats(), err)
	}
}

func TestCaptureRefusesWhatCannotBe(t *testing.T) {
	a, _, _ := capturing(t)
	nobody := func([]api.CaptureEvent) error { t.Error("a refused capture speaks"); return nil }
	for status, q := range map[int]api.CaptureRequest{
		404: request(func(q *api.CaptureRequest) { q.Ports = []string{"cva", "cvb"} }),
		400: request(func(q *api.CaptureRequest) { q.Reason, q.Direction = "no_route", "tx" }),
	} {
		if err := a.Capture(t.Context(), q, nobody); api.StatusOf(err) != status {
			t.Errorf("%v, want status %d", err, status)
		}
	}
	for range dataplane.MaxCaptures {
		c, err := a.engine.StartCapture(&dataplane.CaptureSpec{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if err := a.Capture(t.Context(), request(func(*api.CaptureRequest) {}), nobody); api.StatusOf(err) != 503 {
		t.Errorf("one too many: %v", err)
	}
}

func TestCaptureSpecFromRequest(t *testing.T) {
	for proto, want := range map[string]uint16{"tcp": 6, "icmpv6": 58, "255": 255, "arp": 0x806, "ipip": 4} {
		name, err := api.ParseCaptureProto(proto)
		if err != nil {
			t.Fatal(err)
		}
		s, err := captureSpec(&api.CaptureRequest{Proto: name, Direction: "any"})
		if err != nil || !s.Match.ByProto || s.Match.Proto != want {
			t.Errorf("%s: %+v, %v", proto, s, err)
		}
	}
}
