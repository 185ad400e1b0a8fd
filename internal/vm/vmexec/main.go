// Command vmexec runs a program in a virtual machine (package vm), as in
//
//	go test -tags vm -exec vmexec ./dataplane/xsk
//	vmexec sh -c 'ip link; dmesg'
//
// and exits with its code; with 125 when there was no machine or no result. It
// finds vminit, and the programs of Culvert that the machine gets, in its own
// directory. The environment:
//
//	VM_KERNEL   directory of the kernel; default: the file kernel beside vmexec names it
//	VM_ACCEL    tcg or kvm; default: kvm where the CPU has it
//	VM_CPUS     2
//	VM_MEMORY   1024, in MB
//	VM_TIMEOUT  10m, after which the machine is killed
//	VM_CONSOLE  when set, the kernel's console is shown as it comes
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"culvert/internal/vm"
)

// noResult is the exit code when the program itself has none.
const noResult = 125

// tools of this machine that tests, and people who debug them, use in there.
var tools = []string{"sh", "ip", "ping", "ethtool", "tcpdump", "traceroute", "cat", "ls", "dmesg", "sleep", "mkdir", "uname", "head", "tail", "grep"}

// programs of Culvert, where tests look for them in the machine.
var programs = []string{"culvertd", "culvert", "culvert-cni"}

// programDir is where the machine has Culvert's programs.
const programDir = "/culvert"

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmexec:", err)
		code = noResult
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	if len(args) == 0 {
		return 0, errors.New("usage: vmexec PROGRAM [ARGUMENT...]")
	}
	o, err := options(args)
	if err != nil {
		return 0, err
	}
	limit, err := time.ParseDuration(setting("VM_TIMEOUT", "10m"))
	if err != nil {
		return 0, fmt.Errorf("VM_TIMEOUT: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it ran for more than %v", limit))
	defer cancel()
	return vm.Run(ctx, o)
}

func options(args []string) (*vm.Options, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(self)
	program, err := exec.LookPath(args[0])
	if err != nil {
		return nil, err
	}
	o := &vm.Options{
		Init: filepath.Join(dir, "vminit"), Files: map[string]string{}, Tools: tools,
		Accel: setting("VM_ACCEL", vm.DefaultAccel()), Output: os.Stdout,
	}
	if o.Kernel, err = kernel(dir); err != nil {
		return nil, err
	}
	for name, n := range map[string]*int{"VM_MEMORY": &o.Memory, "VM_CPUS": &o.CPUs} {
		fallback := map[string]string{"VM_MEMORY": "1024", "VM_CPUS": "2"}[name]
		if *n, err = strconv.Atoi(setting(name, fallback)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if os.Getenv("VM_CONSOLE") != "" {
		o.Console = os.Stderr
	}
	guest := "/culvert/run/" + filepath.Base(program)
	o.Files[guest] = program
	for _, name := range programs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%w: make vm builds it", err)
		}
		o.Files[filepath.Join(programDir, name)] = path
	}
	o.Job = vm.Job{Args: append([]string{guest}, args[1:]...), Dir: "/culvert/run", Env: environment()}
	return o, nil
}

// environment is what the program sees: a plain one, and what it takes to debug.
func environment() []string {
	env := []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "TMPDIR=/tmp", "VM_PROGRAMS=" + programDir}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if name == "GODEBUG" || name == "GOTRACEBACK" {
			env = append(env, v)
		}
	}
	return env
}

// kernel is where scripts/vm-kernel has put it.
func kernel(dir string) (string, error) {
	if runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("the machine is an amd64 one, this is %s", runtime.GOARCH)
	}
	if k := os.Getenv("VM_KERNEL"); k != "" {
		return k, nil
	}
	name, err := os.ReadFile(filepath.Join(dir, "kernel"))
	if err != nil {
		return "", fmt.Errorf("%w: make vm makes it, from what scripts/vm-kernel prints", err)
	}
	return strings.TrimSpace(string(name)), nil
}

func setting(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}
