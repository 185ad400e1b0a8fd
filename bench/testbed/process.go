package testbed

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a daemon in a namespace, with its output kept in a file.
type Process struct {
	// Patience is how long Stop waits for it to end by SIGTERM; 0 is three seconds.
	Patience time.Duration

	cmd    *exec.Cmd
	log    string
	exited chan struct{}
}

// Start starts a daemon in the namespace. Its output goes to the file log. It
// is killed when the namespace is closed or this process ends.
func (s *Space) Start(cmd *exec.Cmd, log string) (*Process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := s.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	p := &Process{cmd: cmd, log: log, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // ProcessState says how it ended
		close(p.exited)
	}()
	return p, nil
}

// Run runs a command in the namespace to its end and returns its output.
func (s *Space) Run(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := s.Do(cmd.Start); err != nil {
		return "", fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // it may have ended
	defer stop()
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// Proc is the daemon's directory in /proc.
func (p *Process) Proc() string { return fmt.Sprintf("/proc/%d", p.cmd.Process.Pid) }

// Await calls ready until it says nil, for at most the given time, as long as
// the daemon runs. Its error has the end of the daemon's log.
func (p *Process) Await(ctx context.Context, limit time.Duration, ready func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.exited:
			return fmt.Errorf("%s ended: %s\n%s", p.cmd.Path, p.cmd.ProcessState, p.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after %s: %w\n%s", p.cmd.Path, limit, err, p.Log())
		}
	}
}

// Log is the end of what the daemon has written.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	const keep = 4096
	return string(b[max(0, len(b)-keep):])
}

// Stop ends the daemon, by SIGKILL if SIGTERM does not within its Patience.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending %s: %w", p.cmd.Path, err)
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(cmp.Or(p.Patience, 3*time.Second)):
	}
	_ = p.cmd.Process.Kill() // it may have ended just now
	<-p.exited
	return fmt.Errorf("%s did not end by SIGTERM and was killed\n%s", p.cmd.Path, p.Log())
}

// CPUTime is the processor time a process or thread has taken so far. path is
// /proc/PID or /proc/PID/task/TID.
func CPUTime(path string) (time.Duration, error) {
	b, err := os.ReadFile(path + "/stat")
	if err != nil {
		return 0, err
	}
	_, after, ok := bytes.Cut(b, []byte(") ")) // the name in brackets may hold anything but this here
	fields := strings.Fields(string(after))
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("%s/stat: cannot be read", path)
	}
	utime, err1 := strconv.ParseInt(fields[11], 10, 64)
	stime, err2 := strconv.ParseInt(fields[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture that Go and XDP share
	return time.Duration(utime+stime) * tick, errors.Join(err1, err2)
}
