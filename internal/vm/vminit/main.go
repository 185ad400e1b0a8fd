// Command vminit is the first process of a virtual machine of package vm: it
// makes the system ready, runs one program, reports its exit code and turns the
// machine off. It never returns: the kernel would panic.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"culvert/internal/vm"
)

// failed is the exit code of a machine that could not run its job.
const failed = 125

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vminit:", err) // the console
		code = failed
	}
	if err := report(code); err != nil {
		fmt.Fprintln(os.Stderr, "vminit: reporting:", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func run() (code int, err error) {
	if err := mountAll(); err != nil {
		return 0, err
	}
	if err := loadModules(); err != nil {
		return 0, err
	}
	if err := loopbackUp(); err != nil {
		return 0, fmt.Errorf("bringing lo up: %w", err)
	}
	var job vm.Job
	data, err := os.ReadFile(vm.JobPath)
	if err == nil {
		err = json.Unmarshal(data, &job)
	}
	if err != nil {
		return 0, fmt.Errorf("the job: %w", err)
	}
	out, err := openPort(vm.OutputPort)
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(job.Dir, 0o755); err != nil {
		return 0, err
	}
	return runJob(&job, out)
}

// runJob runs the program and, being the first process, buries every process
// whose parent has died.
func runJob(job *vm.Job, out *os.File) (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(job.Args[0], job.Args, &syscall.ProcAttr{
		Dir: job.Dir, Env: job.Env, Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("starting %s: %w", job.Args[0], err)
	}
	for {
		var status unix.WaitStatus
		switch ended, err := unix.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("waiting for %s: %w", job.Args[0], err)
		case ended == pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case ended == pid:
			return status.ExitStatus(), nil
		}
	}
}

// mountAll mounts what programs expect.
func mountAll() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"devpts", "/dev/pts"},
		{"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"bpf", "/sys/fs/bpf"}, {"debugfs", "/sys/kernel/debug"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.at, err)
		}
	}
	return nil
}

// loadModules loads all modules in the order of their names. Nothing is loaded
// later: there is no modprobe.
func loadModules() error {
	files, err := filepath.Glob(filepath.Join(vm.ModuleDir, "*.ko"))
	if err != nil {
		return err
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("loading %s: %w", filepath.Base(path), err)
		}
	}
	return nil
}

// openPort opens the virtio serial port of that name, which appears a moment
// after the modules.
func openPort(name string) (*os.File, error) {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, path := range names {
			if got, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(got)) == name {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), os.O_WRONLY, 0)
			}
		}
	}
	return nil, fmt.Errorf("the machine has no port %s", name)
}

func report(code int) error {
	f, err := openPort(vm.ResultPort)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, code)
	return err
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
