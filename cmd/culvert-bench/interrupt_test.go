package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSignals interrupts the program itself while culvertd, and Open vSwitch, forward:
// it ends soon, and neither processes nor devices nor namespaces nor files stay.
func TestSignals(t *testing.T) {
	bin := t.TempDir()
	out, err := exec.Command("go", "build", "-pgo=off", "-o", bin+"/", "../culvertd", "../culvert", "../culvert-cni", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("building the programs: %v\n%s", err, out)
	}
	for device, program := range map[string]string{"culvert": "culvertd", "ovs-generic": "ovs-vswitchd"} {
		t.Run(device, func(t *testing.T) { testSignal(t, bin, device, program) })
	}
}

func testSignal(t *testing.T, bin, device, program string) {
	leavesNothing(t)
	before := surroundings(t)
	var stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "culvert-bench"), "run", "--force", "-e", "encap-size", "-d", device,
		"--duration", "1m", "--patience", "0s", "--out", t.TempDir())
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var running []string
	for end := time.Now().Add(20 * time.Second); !slices.ContainsFunc(running, func(p string) bool { return strings.HasSuffix(p, " "+program) }); {
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			t.Fatalf("%s was not started: %v\n%s", program, running, stderr.String())
		}
		time.Sleep(50 * time.Millisecond)
		running = descendants(t, cmd.Process.Pid)
	}
	time.Sleep(500 * time.Millisecond) // the load is on, or about to be
	running = descendants(t, cmd.Process.Pid)
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if took := time.Since(began); cmd.ProcessState.ExitCode() != exitInterrupted || took > 15*time.Second {
		t.Errorf("it ended after %s: %v\n%s", took, err, stderr.String())
	}
	for _, p := range running {
		if left := process(strings.Fields(p)[0]); left == p {
			t.Errorf("%s runs still", p)
		}
	}
	if after := surroundings(t); !reflect.DeepEqual(before, after) {
		t.Errorf("devices and namespaces are\n%v, were\n%v", after, before)
	}
}

// surroundings are the devices and the named network namespaces of the machine.
func surroundings(t *testing.T) (list []string) {
	t.Helper()
	devices, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		list = append(list, d.Name)
	}
	namespaces, err := filepath.Glob("/run/netns/*")
	if err != nil {
		t.Fatal(err)
	}
	return append(list, namespaces...)
}

// process is the number and the name of a process, "" if there is none.
func process(pid string) string {
	comm, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
	if err != nil {
		return ""
	}
	return pid + " " + strings.TrimSpace(string(comm))
}

// descendants are the processes that a process has started, and theirs.
func descendants(t *testing.T, pid int) (list []string) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(b)) {
			var n int
			if _, err := fmt.Sscan(child, &n); err != nil {
				t.Fatal(err)
			}
			if p := process(child); p != "" {
				list = append(list, p)
			}
			list = append(list, descendants(t, n)...)
		}
	}
	return list
}
