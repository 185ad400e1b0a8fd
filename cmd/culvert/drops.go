package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
	"culvert/internal/drop"
)

func (a *app) dropsCommand() *cobra.Command {
	return lister(a, "drops", "Discarded frames by reason and port, most first", "/v1/drops", printDrops)
}

func printDrops(w io.Writer, drops []api.Drop) {
	slices.SortStableFunc(drops, func(x, y api.Drop) int {
		switch {
		case x.Packets > y.Packets:
			return -1
		case x.Packets < y.Packets:
			return 1
		}
		return 0
	})
	rows := make([][]string, len(drops))
	for i, d := range drops {
		what := ""
		if r, ok := drop.ByName(d.Reason); ok {
			what = r.What()
		}
		port := d.Port
		if port == "" && d.Kind != "" {
			port = "gone-" + d.Kind
		}
		rows[i] = []string{count(d.Packets), d.Reason, port, what}
	}
	columns(w, "PACKETS REASON PORT MEANING", rows)
}

// explanation is the JSON form of a reason.
type explanation struct {
	Reason string `json:"reason"`
	What   string `json:"what"`
	Advice string `json:"advice"`
}

func explain(r drop.Reason) explanation {
	return explanation{r.String(), r.What(), r.Advice()}
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [REASON]",
		Short: "What a drop reason means and what to do about it",
		Long:  "Explain a drop reason, or list all of them. Needs no agent.",
		Args:  cobra.MaximumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, r := range drop.All() {
				names = append(names, r.String()+"\t"+r.What())
			}
			if len(args) > 0 {
				names = nil
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				all := make([]explanation, 0, drop.Count)
				for _, r := range drop.All() {
					all = append(all, explain(r))
				}
				return emit(a, cmd, all, printReasons)
			}
			r, ok := drop.ByName(args[0])
			if !ok || r == drop.None {
				return &usageError{fmt.Errorf("%q is no drop reason; 'culvert explain' lists them", args[0])}
			}
			return emit(a, cmd, explain(r), printExplanation)
		},
	}
}

func printReasons(w io.Writer, all []explanation) {
	rows := make([][]string, len(all))
	for i, e := range all {
		rows[i] = []string{e.Reason, e.What}
	}
	columns(w, "REASON MEANING", rows)
}

func printExplanation(w io.Writer, e explanation) {
	fmt.Fprintf(w, "%s: %s\nadvice: %s\n", e.Reason, e.What, e.Advice)
}
