// Command culvert-bench measures how fast Culvert forwards, side by side with what
// people use today, on the machine that it runs on: 'run' measures and reports,
// 'report' shows what was measured, 'compare' says what moved between two runs.
//
// Everything happens in network namespaces of its own, which end with it. Text goes
// to standard output, progress to standard error. Exit codes: 0 done, 1 failed,
// 2 wrong usage, 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // as a shell says of SIGINT
)

// errInterrupted is why a run ends by a signal.
var errInterrupted = errors.New("interrupted")

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		<-signals
		signal.Stop(signals) // the next one ends the program at once
		cancel(errInterrupted)
	}()
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// execute is the whole command with its edges injected; it returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "culvert-bench:", err)
	var failed *failedError
	switch {
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.As(err, &failed):
		return exitFailed
	}
	// Cobra's own, or ours of an argument that makes no sense.
	fmt.Fprintf(stderr, "see '%s --help'\n", cmd.CommandPath())
	return exitUsage
}

// failedError marks an error of a command whose usage was right.
type failedError struct{ error }

func (e *failedError) Unwrap() error { return e.error }

// failed wraps an error that is not the usage's; nil stays nil.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &failedError{err}
}
