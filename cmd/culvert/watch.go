package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
)

func (a *app) flowWatchCommand() *cobra.Command {
	var filter api.FlowFilter
	c := &cobra.Command{
		Use:   "watch",
		Short: "Print flows as they come, change state and go, until interrupted",
		Long: "Print flows as 'conntrack -E' does, and why they ended: expired, evicted from a full\n" +
			"table, flushed, or unroutable since their destination left. With -o json an event is\n" +
			"one line. Events that come faster than they are read are counted as missed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.watch(cmd, &filter) },
	}
	filterFlags(c, &filter)
	return c
}

func (a *app) watch(cmd *cobra.Command, filter *api.FlowFilter) error {
	out := cmd.OutOrStdout()
	return a.client().Watch(cmd.Context(), "/v1/flows/watch?"+filter.Query().Encode(), func(line []byte) error {
		if a.json() {
			_, err := fmt.Fprintf(out, "%s\n", line)
			return err
		}
		var e api.FlowEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("an event that this version does not expect: %w", err)
		}
		return printEvent(out, &e)
	})
}

func printEvent(w io.Writer, e *api.FlowEvent) (err error) {
	switch {
	case e.Flow == nil:
		_, err = fmt.Fprintf(w, "%9s %d events\n", "["+e.Event+"]", e.Missed)
	case e.Reason != "":
		_, err = fmt.Fprintf(w, "%9s %s reason=%s\n", "["+e.Event+"]", flowLine(e.Flow), e.Reason)
	default:
		_, err = fmt.Fprintf(w, "%9s %s\n", "["+e.Event+"]", flowLine(e.Flow))
	}
	return err
}
