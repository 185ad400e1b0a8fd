package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How long culvertd may take to end after SIGTERM, then after SIGKILL.
const (
	termTimeout = 5 * time.Second
	killTimeout = 2 * time.Second
)

// Down takes a lab down, whatever of it there is: pods through the plugin's
// DEL, culvertd by SIGTERM, then namespaces, files and state. It goes on after
// errors and returns them all; calling it again continues. It takes no context
// since it is what follows a Ctrl-C.
func (l *Lab) Down() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, n := range l.Nodes {
		if n.Kind == Culvert && n.Socket != "" && n.alive() {
			for _, p := range n.Pods {
				if _, err := l.CNI(ctx, n, p, "DEL"); err != nil {
					errs = append(errs, fmt.Errorf("pod %s: %w", p.Name, err))
				}
			}
		}
		if err := n.stop(); err != nil {
			errs = append(errs, err)
		}
	}
	for i, mac := range l.NICs {
		errs = append(errs, giveNICBack(l.Nodes[i].Netns, mac))
	}
	names, err := filepath.Glob(netnsPath(l.Name + "-*"))
	errs = append(errs, err)
	for _, path := range names {
		errs = append(errs, deleteNetns(filepath.Base(path)))
	}
	if l.Dir != "" && strings.HasPrefix(filepath.Base(l.Dir), l.Name+"-") {
		errs = append(errs, os.RemoveAll(l.Dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("taking lab %s down: %w", l.Name, err)
	}
	return l.forget()
}

// alive reports whether the node's culvertd runs. A process whose first thread has
// ended may have others that are on their way out and hold its sockets.
func (n *Node) alive() bool {
	if n.PID == 0 {
		return false
	}
	if n.exited != nil {
		select {
		case <-n.exited:
			return false
		default:
			return true
		}
	}
	t, err := startTime(n.PID)
	return err == nil && t == n.StartTime
}

// StopAgent ends a node's culvertd by a signal that ends it (SIGTERM, SIGKILL)
// and waits until it is gone.
func (l *Lab) StopAgent(n *Node, signal syscall.Signal) error {
	if !n.alive() {
		return nil
	}
	if err := syscall.Kill(n.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending culvertd of %s: %w", n.Name, err)
	}
	for end := time.Now().Add(termTimeout); n.alive(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("culvertd of %s (process %d) does not end after %v", n.Name, n.PID, signal)
		}
	}
	return nil
}

// stop ends the node's culvertd in order, and by force if it does not.
func (n *Node) stop() error {
	for _, try := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, termTimeout}, {syscall.SIGKILL, killTimeout}} {
		if !n.alive() {
			return nil
		}
		if err := syscall.Kill(n.PID, try.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending culvertd of %s: %w", n.Name, err)
		}
		for end := time.Now().Add(try.wait); n.alive() && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
	}
	if n.alive() {
		return fmt.Errorf("culvertd of %s (process %d) does not end", n.Name, n.PID)
	}
	return nil
}

// startTime is when a process started, in clock ticks: field 22 of
// /proc/PID/stat (proc(5)). A zombie has ended.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses, which may contain any.
	i := bytes.LastIndexByte(data, ')')
	fields := strings.Fields(string(data[i+1:]))
	if i < 0 || len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has another form than expected", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
