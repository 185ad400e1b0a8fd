package kubetest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a program that serves over HTTP.
type process struct {
	name, path, log string
	args            []string
	cmd             *exec.Cmd
	ended           chan struct{} // closed when the process is gone
}

// start starts the program and waits until url is answered with OK.
func (p *process) start(url string, client *http.Client) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.ended = make(chan struct{})
	started := make(chan error)
	go func() {
		// The signal is sent when the thread ends that started the process (prctl(2)), and
		// tests in namespaces end threads.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
		close(p.ended)
		runtime.UnlockOSThread()
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	if err := p.wait(url, client); err != nil {
		p.kill()
		return fmt.Errorf("%s: %w:\n%s", p.name, err, p.tail())
	}
	return nil
}

func (p *process) wait(url string, client *http.Client) error {
	if client == nil {
		client = http.DefaultClient
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("ended: %s", p.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("not ready after %s", startTimeout)
		case <-time.After(50 * time.Millisecond): // one that found its port taken is gone by now
			if err == nil && resp.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
}

// kill ends the process and waits until it is gone.
func (p *process) kill() {
	if p.cmd == nil || p.cmd.Process == nil || p.ended == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// tail is the end of what the program said.
func (p *process) tail() string {
	const most = 4096
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-most):])
}
