//go:build vmhost

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests run on this machine, and a virtual one in each of them (make
// test-vm). The program there is this test, by what VM_TEST says.

func TestMain(m *testing.M) {
	if what := os.Getenv("VM_TEST"); what != "" {
		guest(what)
	}
	os.Exit(m.Run())
}

// guest is the program in the machine.
func guest(what string) {
	switch what {
	case "report":
		devices, _ := net.Interfaces()
		for _, d := range devices {
			fmt.Println("device", d.Name, d.HardwareAddr)
		}
		fmt.Println("args", os.Args[1:], "and", os.Getenv("EXTRA"))
		fmt.Print(strings.Repeat("x", 1<<20), "\n")
		fmt.Fprintln(os.Stderr, "the last line")
		os.Exit(7)
	case "killed":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	case "panic":
		_ = os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "hang":
		fmt.Println("hanging")
		select {}
	}
}

// options are those of a small machine that does what guest says.
func options(t *testing.T, what string) *Options {
	t.Helper()
	bin, err := filepath.Abs("../../bin/vm")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := os.ReadFile(filepath.Join(bin, "kernel"))
	if err != nil {
		t.Fatalf("%v: make vm makes it", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Options{
		Kernel: strings.TrimSpace(string(kernel)), Init: filepath.Join(bin, "vminit"),
		Files: map[string]string{"/test": self}, Tools: []string{"sh"},
		Job:    Job{Args: []string{"/test", "one", "two"}, Env: []string{"VM_TEST=" + what, "EXTRA=more"}, Dir: "/tmp"},
		Memory: 512, CPUs: 1, Accel: DefaultAccel(),
	}
}

func run(ctx context.Context, t *testing.T, what string) (int, string, error) {
	t.Helper()
	var out bytes.Buffer
	o := options(t, what)
	o.Output = &out
	code, err := Run(ctx, o)
	return code, out.String(), err
}

// A program's output and exit code come out whole, and the machine has its NICs.
func TestMachine(t *testing.T) {
	t.Parallel()
	code, out, err := run(context.Background(), t, "report")
	if err != nil || code != 7 {
		t.Fatalf("code %d, %v\n%.2000s", code, err, out)
	}
	for _, want := range []string{"device lo", "device eth0 " + NICs[0], "device eth1 " + NICs[1], "args [one two] and more", strings.Repeat("x", 1<<20)} {
		if !strings.Contains(out, want) {
			t.Errorf("%.40q is not in the output", want)
		}
	}
	if !strings.HasSuffix(out, "the last line\n") {
		t.Errorf("the output ends in %q", out[max(0, len(out)-100):])
	}
}

func TestMachineKilledProgram(t *testing.T) {
	t.Parallel()
	if code, out, err := run(context.Background(), t, "killed"); err != nil || code != 128+9 {
		t.Errorf("code %d, %v\n%.2000s", code, err, out)
	}
}

// A kernel that panics ends the machine, and its last words are shown.
func TestMachinePanics(t *testing.T) {
	t.Parallel()
	_, out, err := run(context.Background(), t, "panic")
	if err == nil || !strings.Contains(out, "Kernel panic") {
		t.Errorf("%v\n%.2000s", err, out)
	}
}

// A machine whose time is over is killed. Nothing is left of it.
func TestMachineIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	over := errors.New("the test has seen enough")
	o := options(t, "hang")
	o.Output = writer(func(b []byte) {
		if bytes.Contains(b, []byte("hanging")) {
			cancel(over)
		}
	})
	if _, err := Run(ctx, o); !errors.Is(err, over) {
		t.Errorf("it ended with %v", err)
	}
	if child := childOf(t); child != "" {
		t.Errorf("a process is left: %s", child)
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}

// childOf names a process that is a child of this one, a moment from now.
func childOf(t *testing.T) string {
	t.Helper()
	time.Sleep(100 * time.Millisecond)
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lists {
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			return string(text)
		}
	}
	return ""
}

// What is missing is named.
func TestMachineMissing(t *testing.T) {
	for _, tt := range []struct {
		want   string
		change func(*Options)
	}{
		{"scripts/vm-kernel", func(o *Options) { o.Kernel = "/nowhere" }},
		{"no-such-tool", func(o *Options) { o.Tools = []string{"no-such-tool"} }},
		{"/nowhere/init", func(o *Options) { o.Init = "/nowhere/init" }},
		{"/nowhere/program", func(o *Options) { o.Files["/x"] = "/nowhere/program" }},
	} {
		o := options(t, "report")
		tt.change(o)
		if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s is missing: %v", tt.want, err)
		}
	}
}
