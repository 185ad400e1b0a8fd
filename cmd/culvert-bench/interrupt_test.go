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

	"culvert/bench/testbed"
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
		"--duration", "5s", "--patience", "0s", "--out", t.TempDir())
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second // for what has inherited it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
	var running []string
	forwards := func(p string) bool {
		return strings.HasSuffix(p, " "+program) && used(t, strings.Fields(p)[0]) > time.Second
	}
	for end := time.Now().Add(time.Minute); !slices.ContainsFunc(running, forwards); {
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("%s does not forward: %v\n%s", program, running, stderr.String())
		}
		time.Sleep(50 * time.Millisecond)
		running = descendants(t, cmd.Process.Pid)
	}
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if took := time.Since(began); cmd.ProcessState.ExitCode() != exitInterrupted || took > 15*time.Second {
		t.Errorf("it ended after %s: %v\n%s", took, err, stderr.String())
	}
	for _, p := range running {
		if process(strings.Fields(p)[0]) == p && !zombie(strings.Fields(p)[0]) {
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

// used is the processor time that a process took so far.
func used(t *testing.T, pid string) time.Duration {
	t.Helper()
	d, err := testbed.CPUTime(filepath.Join("/proc", pid))
	if err != nil {
		return 0 // it has ended
	}
	return d
}

// zombie: it has ended, and nobody has asked how.
func zombie(pid string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	_, after, _ := strings.Cut(string(b), ") ")
	return err == nil && strings.HasPrefix(after, "Z")
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
