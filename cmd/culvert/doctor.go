package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
)

// The states of a finding.
const (
	stateOK   = "ok"
	stateWarn = "warn"
	stateFail = "fail"
)

// finding is the result of one check.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"`
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check the kernel, the limits, the uplinks and the agent",
		Long: "Check what Culvert needs of this machine. Works without an agent, with fewer checks.\n" +
			"Exits with 1 when a check fails.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m := machine{root: "/", openXDP: openXDP}
			all := m.checkKernel()
			var s api.Status
			err := a.client().Get(cmd.Context(), "/v1/status", &s)
			all = append(all, checkAgent(&s, err)...)
			if err != nil {
				all = append(all, m.checkUplinks(m.defaultUplinks(), "", 0)...)
			} else {
				m.elsewhere = otherNamespace(a.client().Socket())
				all = append(all, m.checkUplinks(s.Uplinks, s.Encap, s.MTU)...)
			}
			if err := emit(a, cmd, all, printFindings); err != nil {
				return err
			}
			return verdict(all)
		},
	}
}

func printFindings(w io.Writer, all []finding) {
	for _, f := range all {
		fmt.Fprintf(w, "%-4s  %-18s %s\n", f.State, f.Check, f.Found)
		if f.Advice != "" {
			fmt.Fprintf(w, "%25s-> %s\n", "", f.Advice)
		}
	}
}

// verdict is an error when a check failed.
func verdict(all []finding) error {
	failed := 0
	for _, f := range all {
		if f.State == stateFail {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(all))
	}
	return nil
}

func checkAgent(s *api.Status, err error) []finding {
	var down *api.UnavailableError
	switch {
	case errors.As(err, &down):
		return []finding{{"agent", stateWarn, err.Error(), ""}}
	case err != nil:
		return []finding{{"agent", stateFail, err.Error(), "see the log of culvertd"}}
	case !s.Ready:
		return []finding{{"agent", stateFail, state(s), "'culvert status' shows more"}}
	}
	all := []finding{{"agent", stateOK, fmt.Sprintf("%s: ready, version %s", s.Node, orNA(s.Version)), ""}}
	for _, d := range s.Degraded {
		all = append(all, finding{"agent", stateWarn, d, ""})
	}
	return all
}
