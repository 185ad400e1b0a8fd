package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/api/apitest"
)

func watching() *apitest.Agent {
	agent := apitest.New()
	agent.EventList = []api.FlowEvent{
		{Event: api.FlowNew, Flow: &agent.FlowList[1]},
		{Event: api.FlowMissed, Missed: 12},
		{Event: api.FlowDestroy, Reason: "evicted", Flow: &agent.FlowList[1]},
	}
	return agent
}

// watch runs the command until it has printed what the agent has to say.
func watch(t *testing.T, args ...string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	var stdout, stderr bytes.Buffer
	args = append([]string{"flow", "watch", "--socket", serve(t, watching())}, args...)
	if code := run(ctx, args, &stdout, &stderr); code != 0 { // an interrupt is how a watch ends
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	return stdout.String()
}

func TestWatch(t *testing.T) {
	const line = "udp      17 29 src=10.244.1.2 dst=10.244.2.3 sport=5353 dport=53 packets=1 bytes=60 [UNREPLIED] " +
		"src=10.244.2.3 dst=10.244.1.2 sport=53 dport=5353 packets=0 bytes=0"
	want := "    [NEW] " + line + "\n [MISSED] 12 events\n[DESTROY] " + line + " reason=evicted\n"
	if got := watch(t); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestWatchJSON(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(watch(t, "-o", "json")), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[2], `{"event":"DESTROY","reason":"evicted","flow":{"proto":"udp"`) {
		t.Errorf("%q", lines)
	}
}

func TestWatchFilters(t *testing.T) {
	if got := watch(t, "-p", "tcp"); got != " [MISSED] 12 events\n" {
		t.Errorf("%q", got)
	}
}
