package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"culvert/internal/probe"
)

// machine is what the checks look at, so that tests can give them another.
type machine struct {
	root string // where /proc and /sys are
	// elsewhere is the network namespace of the agent, as an argument for
	// nsenter; empty when it is this one.
	elsewhere string
	// dataplane, tap and vxlan try what their names say, in a namespace of their own.
	dataplane, tap, vxlan func() error
	lockedMemory          func() (uint64, error)
	look                  func(device string) (probe.NIC, error)
	devices               func() ([]probe.Device, error)
	ping                  func(ctx context.Context, to netip.Addr, size int) error
}

func thisMachine() *machine {
	return &machine{
		root: "/", dataplane: probe.Dataplane, tap: probe.TAP, vxlan: probe.VXLAN,
		lockedMemory: probe.LockedMemory, look: probe.Look, devices: probe.Devices, ping: probe.Ping,
	}
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
	return []finding{
		{"kernel", stateOK, "Linux " + orNA(m.read("proc/sys/kernel/osrelease")), ""}, // what it can do is tried
		m.checkCapabilities(), m.checkDataplane(), m.checkTAP(), m.checkVXLAN(), m.checkJIT(),
	}
}

// likeTheAgent is what to do where this shell may not what culvertd may.
const likeTheAgent = "run this check as culvertd runs: as root, or by kubectl exec in its pod"

func (m *machine) checkDataplane() finding {
	err := m.dataplane()
	switch {
	case err == nil:
		return finding{"dataplane", stateOK, "AF_XDP, XDP, tcx, packet sockets and 64 MB of frame memory: tried", ""}
	case errors.Is(err, syscall.EPERM):
		return finding{"dataplane", stateFail, err.Error(), likeTheAgent}
	case errors.Is(err, syscall.ENOBUFS):
		return finding{"dataplane", stateFail, err.Error(), "raise 'ulimit -l' (LimitMEMLOCK=infinity), or grant CAP_IPC_LOCK"}
	}
	return finding{"dataplane", stateFail, err.Error(),
		"Culvert needs Linux 6.6 or newer with CONFIG_XDP_SOCKETS, CONFIG_BPF_SYSCALL, CONFIG_NET_XGRESS, CONFIG_VETH, CONFIG_PACKET and CONFIG_NET_NS"}
}

func (m *machine) checkTAP() finding {
	err := m.tap()
	switch {
	case err == nil:
		return finding{"tap", stateOK, "TAP devices can be made", ""}
	case errors.Is(err, fs.ErrNotExist):
		return finding{"tap", stateFail, err.Error(), "modprobe tun (and have it loaded at boot); in a container, mount /dev/net/tun"}
	}
	return finding{"tap", stateFail, err.Error(), "culvert0, the node's own way to pods, is one: the kernel needs CONFIG_TUN, and culvertd CAP_NET_ADMIN"}
}

// checkVXLAN: without it tunnels work, and cost more.
func (m *machine) checkVXLAN() finding {
	if err := m.vxlan(); err != nil {
		return finding{"vxlan", stateWarn, err.Error(),
			"modprobe vxlan: without it the kernel does not merge what arrives in tunnels on NICs without native XDP, and bulk TCP is slower"}
	}
	return finding{"vxlan", stateOK, "the kernel merges what arrives in tunnels", ""}
}

// capabilities that culvertd needs, by bit (linux/capability.h). CAP_SYS_ADMIN is for
// entering pods' network namespaces, and includes CAP_BPF.
var capabilities = []struct {
	name string
	bit  uint
}{{"CAP_NET_ADMIN", 12}, {"CAP_NET_RAW", 13}, {"CAP_SYS_ADMIN", 21}}

// capIPCLock lifts the limit on pinned memory.
const capIPCLock = 14

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
		if !has(c.bit) {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return finding{"capabilities", stateWarn, "this shell lacks " + strings.Join(missing, ", "), "culvertd needs them; " + likeTheAgent}
	}
	if limit, err := m.lockedMemory(); !has(capIPCLock) && (err != nil || limit != probe.Unlimited) {
		return finding{"capabilities", stateWarn, fmt.Sprintf("no CAP_IPC_LOCK, and %d kB of memory may be locked", limit>>10),
			"frame memory, 64 MB or more for each worker, counts against 'ulimit -l'; raise it or grant CAP_IPC_LOCK"}
	}
	return finding{"capabilities", stateOK, "net_admin, net_raw, sys_admin, ipc_lock or no limit", ""}
}

func (m *machine) checkJIT() finding {
	if v := m.read("proc/sys/net/core/bpf_jit_enable"); v == "0" {
		return finding{"bpf jit", stateWarn, "off: the steering program is interpreted", "sysctl -w net.core.bpf_jit_enable=1"}
	}
	return finding{"bpf jit", stateOK, "on", ""}
}
