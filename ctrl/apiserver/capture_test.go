package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/api/apitest"
)

// A capture is a line for each event, of which the largest has a frame of 256 KB.
func TestCaptureStreams(t *testing.T) {
	a := apitest.New()
	a.CaptureList = []api.CaptureEvent{
		{Event: api.CaptureFrame, Frame: &api.CapturedFrame{Time: time.Unix(5, 7).UTC(), Port: "eth0", Kind: "uplink", Direction: "drop",
			Reason: "no_route", Length: 262158, Data: make([]byte, api.MaxSnaplen), GSO: &api.GSO{Type: "tcp4", Size: 1398, Segments: 188}, Checksum: "completed"}},
		{Event: api.CaptureMissed, Missed: 3},
		{Event: api.CaptureEnd, Reason: "count"},
	}
	c := serve(t, a)
	var got []api.CaptureEvent
	ended := errors.New("ended")
	err := c.Watch(t.Context(), "/v1/capture?port=eth0&count=1", func(line []byte) error {
		var e api.CaptureEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		got = append(got, e)
		if e.Event == api.CaptureEnd {
			return ended
		}
		return nil
	})
	if !errors.Is(err, ended) {
		t.Fatal(err)
	}
	want := append([]api.CaptureEvent{{Event: api.CaptureBegin, VXLAN: []uint16{4789}}}, a.CaptureList...)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %d lines, want %d", len(got), len(want))
	}
	asked := api.CaptureRequest{Ports: []string{"eth0"}, Direction: "any", Count: 1, Snaplen: api.DefaultSnaplen, Duration: api.DefaultCaptureDuration}
	if seen := a.Seen(); len(seen) != 1 || !reflect.DeepEqual(seen[0], asked) {
		t.Errorf("asked for %+v, want %+v", seen, asked)
	}
}

// What can be said before the first line is said with a status.
func TestCaptureRefusals(t *testing.T) {
	c := serve(t, apitest.New())
	for query, status := range map[string]int{"port=nowhere": 404, "count=x": 400, "count=1;": 400, "what=1": 400} {
		err := c.Watch(t.Context(), "/v1/capture?"+query, func([]byte) error { return nil })
		var refused *api.Error
		if !errors.As(err, &refused) || refused.Status != status {
			t.Errorf("%s: %v, want status %d", query, err, status)
		}
	}
}

// endless is an agent whose capture emits as fast as it is read.
type endless struct {
	*apitest.Agent
	done chan error
}

func (a *endless) Capture(ctx context.Context, _ api.CaptureRequest, emit func([]api.CaptureEvent) error) error {
	line := []api.CaptureEvent{{Event: api.CaptureFrame, Frame: &api.CapturedFrame{Data: make([]byte, 1<<16)}}}
	for {
		err := emit(line)
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			a.done <- err
			return err
		}
	}
}

// A capture ends when its client goes.
func TestCaptureEndsWithItsClient(t *testing.T) {
	a := &endless{apitest.New(), make(chan error, 1)}
	s := httptest.NewServer(Handler(a))
	defer s.Close()
	ctx, stop := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/v1/capture", nil)
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stop()
	select {
	case <-a.done:
	case <-time.After(20 * time.Second):
		t.Error("the capture goes on without its client")
	}
}

// A client that does not read does not keep a capture beyond its time.
func TestCaptureEndsWithoutItsReader(t *testing.T) {
	a := &endless{apitest.New(), make(chan error, 1)}
	s := httptest.NewServer(Handler(a))
	defer s.Close()
	resp, err := s.Client().Get(s.URL + "/v1/capture?duration=1ms")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	select {
	case err := <-a.done:
		if !strings.Contains(err.Error(), "timeout") {
			t.Errorf("ended by %v", err)
		}
	case <-time.After(captureGrace + 20*time.Second):
		t.Error("the capture waits for its reader")
	}
}
