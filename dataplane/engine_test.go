package dataplane

import (
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/internal/memport"
)

// Whoever stops the dataplane waits for a port that is being opened: it uses the
// workers' memory, and is attached to a worker.
func TestCloseWaitsForAPortThatOpens(t *testing.T) {
	e, err := New(Config{Workers: 1, FrameSize: 4096, RingSize: 64, Chunks: 512, FlowCapacity: 64, Checked: true})
	if err != nil {
		t.Fatal(err)
	}
	e.Start()
	dev, closed := memport.New(e.Pool(0)), make(chan error, 1)
	_, err = e.AddPort(PortSpec{Name: "u0", Kind: PortUplink, MTU: 1500, Queues: 1}, func(int, int) (frame.Device, error) {
		go func() { closed <- e.Close() }()
		select {
		case err := <-closed:
			t.Errorf("closed while a port was opened: %v", err)
			closed <- err
		case <-time.After(100 * time.Millisecond):
		}
		return dev, nil
	})
	if err == nil {
		t.Error("a port was added to a dataplane that has stopped")
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
