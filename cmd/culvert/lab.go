package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"culvert/internal/lab"
)

func (a *app) labCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "Nodes and pods in network namespaces of this machine, to try things on",
		Long: "List the labs of this machine. A lab is a small cluster in network namespaces of its own:\n" +
			"culvertd runs on its nodes, its pods are attached through culvert-cni. Needs root.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			labs, err := lab.LoadAll()
			if err != nil {
				return err
			}
			return emit(a, cmd, viewLabs(labs), printLabs)
		},
	}
	c.AddCommand(a.labUpCommand(), a.labDownCommand(), a.labDemoCommand())
	return c
}

func (a *app) labUpCommand() *cobra.Command {
	opts := &lab.Options{}
	c := &cobra.Command{
		Use:   "up",
		Short: "Build a lab and leave it running",
		Example: "  culvert lab up --peer flannel\n" +
			"  ip netns exec cvl-012345-a1 ping 10.244.2.2",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := opts.Check(); err != nil {
				return &usageError{err}
			}
			opts.Progress = cmd.ErrOrStderr()
			l, err := lab.Up(cmd.Context(), *opts)
			if err != nil {
				return err
			}
			return emit(a, cmd, viewLab(l), func(w io.Writer, v labView) { printLabs(w, []labView{v}) })
		},
	}
	labFlags(c, opts)
	return c
}

func (a *app) labDownCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "down [NAME]",
		Short: "Take a lab down: the only one, that of a name, or all",
		Args:  cobra.MaximumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			labs, err := lab.LoadAll()
			if err != nil || len(args) > 0 {
				labs = nil
			}
			return labNames(labs), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			labs, err := lab.LoadAll()
			if err != nil {
				return err
			}
			if labs, err = chooseLabs(labs, args, all); err != nil {
				return err
			}
			if len(labs) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no lab is up")
			}
			var errs []error
			down := []*lab.Lab{}
			for _, l := range labs {
				if err := l.Down(); err != nil {
					errs = append(errs, err)
					continue
				}
				down = append(down, l)
				fmt.Fprintf(cmd.ErrOrStderr(), "lab %s is down\n", l.Name)
			}
			return errors.Join(append(errs, emit(a, cmd, viewLabs(down), func(io.Writer, []labView) {}))...)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all labs of this machine")
	return c
}

// chooseLabs finds what 'lab down' means. None is fine unless one was named.
func chooseLabs(labs []*lab.Lab, args []string, all bool) ([]*lab.Lab, error) {
	switch {
	case len(args) > 0 && all:
		return nil, &usageError{errors.New("a name and --all contradict each other")}
	case len(args) > 0:
		i := slices.IndexFunc(labs, func(l *lab.Lab) bool { return l.Name == args[0] })
		if i < 0 {
			return nil, fmt.Errorf("there is no lab %s; 'culvert lab' lists them", args[0])
		}
		return labs[i : i+1], nil
	case len(labs) > 1 && !all:
		return nil, &usageError{fmt.Errorf("there are %d labs: name one of %s, or say --all", len(labs), strings.Join(labNames(labs), ", "))}
	}
	return labs, nil
}

func labNames(labs []*lab.Lab) []string {
	names := make([]string, len(labs))
	for i, l := range labs {
		names[i] = l.Name
	}
	return names
}

func (a *app) labDemoCommand() *cobra.Command {
	opts := &lab.Options{}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Build a lab, send traffic through it, show what happened, take it down",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := opts.Check(); err != nil {
				return &usageError{err}
			}
			if !a.json() {
				return lab.RunDemo(cmd.Context(), *opts, cmd.OutOrStdout())
			}
			err := lab.RunDemo(cmd.Context(), *opts, cmd.ErrOrStderr())
			view := demoView{OK: err == nil, Failures: []string{}}
			if err != nil {
				view.Failures = strings.Split(err.Error(), "\n")
			}
			return errors.Join(err, printJSON(cmd.OutOrStdout(), view))
		},
	}
	labFlags(c, opts)
	return c
}

func labFlags(c *cobra.Command, opts *lab.Options) {
	kinds := make([]string, len(lab.Kinds))
	for i, k := range lab.Kinds {
		kinds[i] = string(k)
	}
	families := []string{string(lab.IPv4), string(lab.IPv6), string(lab.Dual)}
	f := c.Flags()
	opts.Nodes, opts.Pods, opts.MTU = 2, 2, 1500
	f.Var(&rangeFlag{&opts.Nodes, 1, lab.MaxNodes}, "nodes", "number of nodes")
	f.Var(&rangeFlag{&opts.Pods, 1, lab.MaxPods}, "pods", "number of pods on each node")
	f.Var(&peerFlag{enum{value: string(lab.Culvert), allowed: kinds}, opts}, "peer",
		"what the last node runs: culvert, or the kernel's VXLAN as flannel or calico sets it up")
	f.Var(&familyFlag{enum{value: string(lab.IPv4), allowed: families}, &opts.Family}, "family", "addresses of the pods: 4, 6 or dual")
	f.Var(&familyFlag{enum{value: string(lab.IPv4), allowed: families[:2]}, &opts.Underlay}, "underlay", "addresses of the nodes: 4 or 6")
	f.Var(&encapFlag{enum{value: lab.Encaps[0], allowed: lab.Encaps}, opts}, "encap", "how nodes reach each other's pods: vxlan, ipip or none")
	f.BoolVar(&opts.CrossSubnet, "cross-subnet", false, "no encapsulation between nodes of one subnet, which those of a lab are")
	f.BoolVar(&opts.Bridge, "bridge", false, "join even two nodes by a bridge")
	f.StringSliceVar(&opts.Interfaces, "interfaces", []string{"veth"}, "what the pods of Culvert nodes have, in turn: veth, tap")
	f.Var(&rangeFlag{&opts.MTU, lab.MinMTU, lab.MaxMTU}, "mtu", "MTU of the underlay")
	f.StringVar(&opts.BinDir, "bin", "", "directory of culvertd and culvert-cni; default that of this program")
	completeEnum(c, "peer", kinds)
	completeEnum(c, "encap", lab.Encaps)
	completeEnum(c, "family", families)
	completeEnum(c, "underlay", families[:2])
}

// rangeFlag is a number with limits. The flag's default is what is there.
type rangeFlag struct {
	value    *int
	min, max int
}

func (r *rangeFlag) Type() string   { return "int" }
func (r *rangeFlag) String() string { return strconv.Itoa(*r.value) }

func (r *rangeFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < r.min || n > r.max {
		return fmt.Errorf("must be a number from %d to %d", r.min, r.max)
	}
	*r.value = n
	return nil
}

// familyFlag is an enum that sets a family of Options.
type familyFlag struct {
	enum
	family *lab.Family
}

func (f *familyFlag) Set(s string) error {
	if err := f.enum.Set(s); err != nil {
		return err
	}
	*f.family = lab.Family(s)
	return nil
}

// peerFlag is an enum that sets Options.Peer.
type peerFlag struct {
	enum
	opts *lab.Options
}

func (p *peerFlag) Set(s string) error {
	if err := p.enum.Set(s); err != nil {
		return err
	}
	p.opts.Peer = lab.Kind(s)
	return nil
}

// encapFlag is an enum that sets Options.Encap.
type encapFlag struct {
	enum
	opts *lab.Options
}

func (e *encapFlag) Set(s string) error {
	if err := e.enum.Set(s); err != nil {
		return err
	}
	e.opts.Encap = s
	return nil
}
