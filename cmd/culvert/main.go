// Command culvert is the operator's view of a running culvertd: nouns list,
// verbs under them act, and everything it knows it asks over the agent's unix
// socket. 'explain', 'doctor', 'lab' and 'version' work without an agent.
//
// Text goes to standard output, diagnostics to standard error. Exit codes: 0
// done, 1 the agent said no, 2 wrong usage, 3 status of an agent that is not
// ready.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"culvert/ctrl/api"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole command with its edges injected; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return api.ExitOK
	}
	var done *doneError
	if !errors.As(err, &done) {
		// Cobra's own: an unknown command or flag, a wrong number of arguments.
		err = &usageError{err}
	}
	fmt.Fprintln(stderr, "culvert:", err)
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "see '%s --help'\n", cmd.CommandPath())
	}
	return api.ExitCode(err)
}

// doneError marks an error of a command that ran: its usage was right.
type doneError struct{ error }

func (e *doneError) Unwrap() error { return e.error }

// usageError is a call that makes no sense, whoever noticed it.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// ExitCode is what wrong usage ends with.
func (e *usageError) ExitCode() int { return api.ExitUsage }

// notReadyError is what 'status' of an agent that is not ready ends with.
type notReadyError struct{ text string }

func (e *notReadyError) Error() string { return e.text }

// ExitCode tells "not ready" from "no answer".
func (e *notReadyError) ExitCode() int { return api.ExitNotReady }
