package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// lines collects what a process prints.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// events are those that came so far.
func (l *lines) events(t *testing.T) (all []api.FlowEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.buf.Bytes()) {
		var e api.FlowEvent
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// Flows are told while they come and go, with the reason, to who watches; a pod that
// is removed takes its flows along.
func TestFlowWatch(t *testing.T) {
	c := up(t, lab.Options{})
	n, to := c.Nodes[0], c.Nodes[1].Pods[0]
	from, leaver := n.Pods[0], n.Pods[1]
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var out lines
	watch := exec.CommandContext(ctx, filepath.Join(binDir, "culvert"), "--socket", n.Socket, "flow", "watch", "-p", "icmp", "-o", "json")
	watch.Stdout = &out
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer watch.Wait()
	defer stop()
	find := func(event, reason, src string) {
		t.Helper()
		eventually(t, event+" "+reason+" from "+src, func() error {
			for _, e := range out.events(t) {
				if e.Event == event && e.Reason == reason && e.Flow.Src == src {
					return nil
				}
			}
			return context.DeadlineExceeded
		})
	}
	ping := func(p *lab.Pod) {
		must(t, p.Netns, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", to.Addr.String())
	}
	time.Sleep(300 * time.Millisecond) // until it watches
	ping(from)
	find(api.FlowNew, "", from.Addr.String())
	find(api.FlowUpdate, "", from.Addr.String())
	culvert(t, n, "flow", "flush", "-p", "icmp")
	find(api.FlowDestroy, "flushed", from.Addr.String())
	ping(leaver)
	if _, err := c.CNI(ctx, n, leaver, "DEL"); err != nil {
		t.Fatal(err)
	}
	find(api.FlowDestroy, "unroutable", leaver.Addr.String())
}
