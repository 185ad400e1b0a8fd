package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
)

func (a *app) flowWatchCommand() *cobra.Command {
	var filter api.FlowFilter
	var interval time.Duration
	c := &cobra.Command{
		Use:   "watch",
		Short: "Print flows as they come, change state and go, until interrupted",
		Long: "Print flows as 'conntrack -E' does. The table is read once an interval: a flow that\n" +
			"comes and goes within one is not seen. With -o json an event is one line.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < 10*time.Millisecond {
				return &usageError{fmt.Errorf("--interval must be 10ms or more")}
			}
			return a.watch(cmd, &filter, interval)
		},
	}
	filterFlags(c, &filter)
	c.Flags().DurationVar(&interval, "interval", 500*time.Millisecond, "time between two readings")
	return c
}

// flowEvent is what happened to a flow between two readings.
type flowEvent struct {
	Event string   `json:"event"` // NEW, UPDATE or DESTROY
	Flow  api.Flow `json:"flow"`
}

func (a *app) watch(cmd *cobra.Command, filter *api.FlowFilter, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var known map[flowKey]api.Flow
	for {
		flows, err := a.flows(cmd, filter)
		if err != nil {
			if cmd.Context().Err() != nil {
				return nil // interrupted: that is how it ends
			}
			return err
		}
		var events []flowEvent
		known, events = compare(known, flows)
		for i := range events {
			if err := a.printEvent(cmd.OutOrStdout(), &events[i]); err != nil {
				return err
			}
		}
		if !wait(cmd.Context(), tick.C) {
			return nil
		}
	}
}

func wait(ctx context.Context, c <-chan time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-c:
		return true
	}
}

func (a *app) printEvent(w io.Writer, e *flowEvent) error {
	if a.json() {
		return json.NewEncoder(w).Encode(e)
	}
	_, err := fmt.Fprintf(w, "%9s %s\n", "["+e.Event+"]", flowLine(&e.Flow))
	return err
}

type flowKey struct {
	proto, src, dst string
	sport, dport    uint16
	zone            uint16
}

// compare finds what changed since the last reading, nil before the first,
// which makes no events of what was there already.
func compare(before map[flowKey]api.Flow, flows []api.Flow) (map[flowKey]api.Flow, []flowEvent) {
	now := make(map[flowKey]api.Flow, len(flows))
	var events []flowEvent
	for _, f := range flows {
		k := flowKey{f.Proto, f.Src, f.Dst, f.Sport, f.Dport, f.Zone}
		now[k] = f
		if before == nil {
			continue
		}
		old, known := before[k]
		switch {
		case !known:
			events = append(events, flowEvent{"NEW", f})
		case old.State != f.State || old.Unreplied != f.Unreplied || old.Assured != f.Assured:
			events = append(events, flowEvent{"UPDATE", f})
		}
	}
	for k, f := range before {
		if _, still := now[k]; !still {
			events = append(events, flowEvent{"DESTROY", f})
		}
	}
	return now, events
}
