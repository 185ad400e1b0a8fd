package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// machine is what the checks look at, so that tests can give them another.
type machine struct {
	root    string       // where /proc and /sys are
	openXDP func() error // opens and closes an AF_XDP socket
	// elsewhere is the network namespace of the agent, as an argument for
	// nsenter; empty when it is this one.
	elsewhere string
}

// afXDP is AF_XDP of linux/socket.h.
const afXDP = 44

func openXDP() error {
	fd, err := syscall.Socket(afXDP, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return syscall.Close(fd)
}

// read is the trimmed content of a file, empty when it cannot be read.
func (m *machine) read(path string) string {
	b, err := os.ReadFile(filepath.Join(m.root, path))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

func (m *machine) exists(path string) bool {
	_, err := os.Stat(filepath.Join(m.root, path))
	return err == nil
}

func (m *machine) checkKernel() []finding {
	return []finding{m.checkRelease(), m.checkXDP(), m.checkCapabilities(), m.checkJIT()}
}

// checkRelease compares with the kernels that brought what Culvert uses:
// bpf_link for XDP came with 5.9, multi-buffer AF_XDP with 6.6.
func (m *machine) checkRelease() finding {
	release := m.read("proc/sys/kernel/osrelease")
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return finding{"kernel", stateWarn, "unknown release " + strconv.Quote(release), ""}
	}
	atLeast := func(x, y int) bool { return major > x || major == x && minor >= y }
	switch {
	case !atLeast(5, 9):
		return finding{"kernel", stateFail, "Linux " + release, "Culvert needs Linux 5.9 or newer (XDP through bpf_link)"}
	case !atLeast(6, 6):
		return finding{"kernel", stateWarn, "Linux " + release, "before Linux 6.6 AF_XDP takes no frames larger than a page: pods that keep TSO lose their big frames"}
	}
	return finding{"kernel", stateOK, "Linux " + release, ""}
}

func (m *machine) checkXDP() finding {
	err := m.openXDP()
	switch {
	case err == nil:
		return finding{"af_xdp", stateOK, "sockets can be opened", ""}
	case errors.Is(err, syscall.EPERM):
		return finding{"af_xdp", stateFail, "opening a socket: " + err.Error(), "run with CAP_NET_RAW, as culvertd must"}
	}
	return finding{"af_xdp", stateFail, "opening a socket: " + err.Error(), "the kernel needs CONFIG_XDP_SOCKETS"}
}

// capabilities that culvertd needs, by bit (linux/capability.h).
var capabilities = []struct {
	name string
	bit  uint
}{{"CAP_NET_ADMIN", 12}, {"CAP_NET_RAW", 13}, {"CAP_BPF", 39}}

// capSysAdmin includes CAP_BPF, capIPCLock lifts the limit on pinned memory.
const (
	capIPCLock  = 14
	capSysAdmin = 21
)

func (m *machine) checkCapabilities() finding {
	var mask uint64
	for text := range strings.Lines(m.read("proc/self/status")) {
		if value, ok := strings.CutPrefix(text, "CapEff:"); ok {
			mask, _ = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	has := func(bit uint) bool { return mask>>bit&1 != 0 }
	var missing []string
	for _, c := range capabilities {
		if !has(c.bit) && (c.name != "CAP_BPF" || !has(capSysAdmin)) {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return finding{"capabilities", stateWarn, "this shell lacks " + strings.Join(missing, ", "), "culvertd needs them; run this check as culvertd runs"}
	}
	if !has(capIPCLock) {
		return finding{"capabilities", stateWarn, "no CAP_IPC_LOCK", "frame memory counts against 'ulimit -l'; raise it or grant CAP_IPC_LOCK"}
	}
	return finding{"capabilities", stateOK, "net_admin, net_raw, bpf, ipc_lock", ""}
}

func (m *machine) checkJIT() finding {
	if v := m.read("proc/sys/net/core/bpf_jit_enable"); v == "0" {
		return finding{"bpf jit", stateWarn, "off: the steering program is interpreted", "sysctl -w net.core.bpf_jit_enable=1"}
	}
	return finding{"bpf jit", stateOK, "on", ""}
}
