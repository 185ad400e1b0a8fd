package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"culvert/bench/forward"
	"culvert/bench/guard"
	"culvert/bench/report"
	"culvert/bench/result"
	"culvert/bench/run"
	"culvert/bench/suite"
	"culvert/internal/version"

	"github.com/spf13/cobra"
)

// runFlags are the flags of 'run'.
type runFlags struct {
	quick       bool
	experiments []string
	devices     []string
	builds      map[string]string
	rounds      int
	duration    time.Duration
	warmUp      time.Duration
	patience    time.Duration
	generator   string
	cpu         int
	bin         string
	out         string
	force       bool
}

func newRun() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Measure, and report on the terminal, in results.json and in report.html",
		Long: "run measures the experiments of the standard set, which takes about a quarter of an hour, or those that it is told\n" +
			"to ('culvert-bench list' has them). It refuses to run on a machine that is a node in use, and takes root.\n" +
			"Interrupted, it reports what it has measured so far, into results-part.json. Nothing of it is left behind.",
		Example: "  culvert-bench run --quick\n" +
			"  culvert-bench run -e encap-size,decap-size -d culvert,kernel --rounds 8\n" +
			"  culvert-bench run -e encap-size --against before=/tmp/before/bin",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.quick, "quick", false, "the most important part, in less than two minutes")
	flags.StringSliceVarP(&f.experiments, "experiment", "e", nil, "experiments instead of a whole set")
	flags.StringSliceVarP(&f.devices, "device", "d", nil, "devices under test that take part, instead of all")
	flags.StringToStringVar(&f.builds, "against", nil, "another build to measure as culvert@NAME, as NAME=DIRECTORY")
	flags.IntVar(&f.rounds, "rounds", 0, "how often each device takes its turn (default 4, some 2 or 3; quick 2)")
	flags.DurationVar(&f.duration, "duration", standardDuration, "how long each load is measured")
	flags.DurationVar(&f.warmUp, "warm-up", 200*time.Millisecond, "how long each load is on before")
	flags.DurationVar(&f.patience, "patience", -1, "how long a turn waits for the machine to become quiet (default 3s, quick 1s)")
	flags.Lookup("patience").DefValue = "0s" // which is not shown: the text says it
	flags.StringVar(&f.generator, "generator", string(forward.XDP), "who makes the packets: xdp, af_xdp, or pktgen where the kernel has it")
	flags.IntVar(&f.cpu, "generator-cpu", 0, "the processor of the load generator")
	flags.StringVar(&f.bin, "bin", ownDir(), "directory of culvertd, culvert and culvert-cni")
	flags.StringVar(&f.out, "out", filepath.Join("bench", "out"), "directory for results.json and report.html")
	flags.BoolVar(&f.force, "force", false, "run although the machine is in use")
	return cmd
}

// run measures and reports.
func (f *runFlags) run(cmd *cobra.Command) error {
	experiments, o, err := f.plan(cmd.Flags().Changed("rounds"))
	if err != nil {
		return err
	}
	if err := guard.Check("/proc", os.Geteuid()); err != nil && (!f.force || errors.Is(err, guard.ErrNotRoot)) {
		return failed(err)
	}
	p := newProgress(cmd.ErrOrStderr())
	o.Progress = p.show
	r, err := run.Run(cmd.Context(), o, experiments)
	p.clear()
	if r == nil {
		return failed(err)
	}
	return errors.Join(failed(err), f.report(cmd, r, err != nil))
}

// standardDuration is how long each load is measured.
const standardDuration = 800 * time.Millisecond

// plan makes of the flags what is to be done.
func (f *runFlags) plan(countedRounds bool) ([]run.Experiment, run.Options, error) {
	o := &suite.Options{
		Set: suite.Standard, Bin: f.bin, Builds: f.builds,
		Timing: forward.Timing{WarmUp: f.warmUp, Duration: f.duration, Generator: forward.Generator(f.generator), GeneratorCPU: f.cpu},
	}
	rounds, patience := 4, 3*time.Second
	if f.quick {
		o.Set, rounds, patience = suite.Quick, 2, time.Second
	}
	if f.patience >= 0 {
		patience = f.patience
	}
	if countedRounds {
		rounds = f.rounds
	}
	if rounds < 1 {
		return nil, run.Options{}, fmt.Errorf("%d rounds: must be 1 or more", rounds)
	}
	if err := o.Check(); err != nil {
		return nil, run.Options{}, err
	}
	experiments, err := suite.Experiments(o, f.experiments, f.devices)
	if err != nil {
		return nil, run.Options{}, err
	}
	if countedRounds {
		for n := range experiments {
			experiments[n].Rounds = 0 // as many as it was told to
		}
	}
	set := string(o.Set)
	if len(f.experiments)+len(f.devices) > 0 || countedRounds || f.duration != standardDuration {
		set = "chosen"
	}
	return experiments, run.Options{
		Version: version.String(), Patience: patience,
		Settings: result.Settings{
			Set: set, Rounds: rounds, Seconds: o.Timing.Duration.Seconds(), WarmUp: o.Timing.WarmUp.Seconds(),
			Generator: f.generator, GeneratorCPU: f.cpu,
		},
	}, nil
}

// report writes what was found: on the terminal and into files. A part of a run
// does not take the place of a whole one's.
func (f *runFlags) report(cmd *cobra.Command, r *result.Report, part bool) error {
	results, page := filepath.Join(f.out, "results.json"), filepath.Join(f.out, "report.html")
	if part {
		results, page = filepath.Join(f.out, "results-part.json"), filepath.Join(f.out, "report-part.html")
	}
	err := errors.Join(r.Write(results), writePage(page, r), report.Table(cmd.OutOrStdout(), r, terminalWidth(cmd.OutOrStdout())))
	if err != nil {
		return failed(err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "\n%s\n%s\n", results, page)
	return failed(err)
}

func newList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "The experiments there are, and the devices that take part",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := &suite.Options{Set: suite.Standard, Bin: ownDir(), Timing: forward.Timing{Duration: time.Second}}
			for _, name := range suite.Names() {
				all, err := suite.Experiments(o, []string{name}, nil)
				if err != nil {
					return failed(err)
				}
				if err := describe(cmd, all[0]); err != nil {
					return failed(err)
				}
			}
			return nil
		},
	}
}

// describe prints an experiment.
func describe(cmd *cobra.Command, e run.Experiment) error {
	var cases, devices []string
	for _, c := range e.Head.Cases {
		cases = append(cases, c.Name)
	}
	for _, s := range e.Subjects {
		name := s.Device
		if s.Check != nil {
			if err := s.Check(); err != nil {
				name += " (not here)"
			}
		}
		devices = append(devices, name)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%-16s  %s\n%16s  cases: %s\n%16s  devices: %s\n", e.Head.Name, e.Head.Title,
		"", strings.Join(cases, ", "), "", strings.Join(devices, ", "))
	return err
}
