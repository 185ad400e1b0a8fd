// Command culvertd is the node agent: it reads the configuration, wires the
// parts through ctrl/agent, and ends cleanly on SIGTERM. It has no logic of its
// own.
//
// It logs structured lines to standard error. Exit codes: 0 after SIGTERM or
// SIGINT, 1 when the agent could not start or go on, 2 for a wrong flag or a
// bad configuration, with one line that says where it is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"culvert/ctrl/agent"
	"culvert/ctrl/config"
	"culvert/internal/version"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// gcPercent is GOGC where nobody sets it. What packets need is outside of the Go heap;
// on a node its memory is dearer than the control plane's time.
const gcPercent = 50

// While culvertd starts, what it reads stays, and pods wait: there is little to collect,
// and no time for it.
const (
	startGCPercent = 400
	startTime      = 2 * time.Second
)

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(startGCPercent)
		time.AfterFunc(startTime, func() { debug.SetGCPercent(gcPercent) })
	}
	// The first signal ends the agent cleanly; a second one, at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr, serve))
}

// serve runs the agent until ctx ends.
func serve(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	a, err := agent.New(cfg, log, version.String())
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// options are the flags.
type options struct {
	config, logFormat string
	check, version    bool
}

// run is the whole program with its edges injected; it returns the exit code.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer,
	serve func(context.Context, *config.Config, *slog.Logger) error,
) int {
	o, err := parse(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	if err != nil {
		fmt.Fprintln(stderr, "culvertd:", err)
		return exitUsage
	}
	if o.version {
		fmt.Fprintln(stdout, "culvertd", version.String())
		return exitDone
	}
	cfg, err := config.Load(o.config, environ)
	if err != nil {
		fmt.Fprintln(stderr, "culvertd:", err)
		return exitUsage
	}
	if o.check {
		fmt.Fprintf(stdout, "configuration of node %s is valid\n", cfg.Node)
		return exitDone
	}
	log := logger(o.logFormat, stderr)
	for _, name := range cfg.UnknownVariables() {
		log.Warn("environment variable sets no key of the configuration", "variable", name)
	}
	err = serve(ctx, cfg, log)
	var key *config.KeyError
	if errors.As(err, &key) {
		fmt.Fprintln(stderr, "culvertd:", key)
		return exitUsage
	}
	if err != nil {
		log.Error("culvertd ends", "error", err)
		return exitFailed
	}
	return exitDone
}

// parse reads the flags. Help goes to standard output: it was asked for.
func parse(args []string, stdout io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("culvertd", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.config, "config", "", "configuration `FILE`; without it defaults and environment are the configuration")
	flags.BoolVar(&o.check, "check", false, "validate the configuration and exit")
	flags.BoolVar(&o.version, "version", false, "print the version and exit")
	flags.StringVar(&o.logFormat, "log-format", "text", "format of log lines: text or json")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, "usage: culvertd [flags]")
		flags.SetOutput(stdout)
		flags.PrintDefaults()
	case err != nil:
		err = fmt.Errorf("%w; see culvertd --help", err)
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q; see culvertd --help", flags.Arg(0))
	case o.logFormat != "text" && o.logFormat != "json":
		err = fmt.Errorf("--log-format %s: must be text or json", o.logFormat)
	}
	return o, err
}

func logger(format string, w io.Writer) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}
