package testbed

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newSpace(t *testing.T) *Space {
	t.Helper()
	s, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSpaceIsOfItsOwn(t *testing.T) {
	s := newSpace(t)
	var names []string
	err := s.Do(func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			names = append(names, i.Name)
		}
		return err
	})
	if err != nil || strings.Contains(strings.Join(names, " "), "eth") {
		t.Errorf("the new namespace has %v: %v", names, err)
	}
	if err := s.Do(func() error { return os.ErrInvalid }); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("Do returned %v", err)
	}
	out, err := s.Run(context.Background(), exec.Command("nsenter", "--net="+s.Path(), "ip", "-o", "link"))
	if err != nil || !strings.Contains(out, "lo:") {
		t.Errorf("through %s: %s: %v", s.Path(), out, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Do in a closed namespace returned %v", err)
	}
}

func TestProcessesEndWithTheSpace(t *testing.T) {
	s := newSpace(t)
	p, err := s.Start(exec.Command("sleep", "1000"), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	if cpu, err := CPUTime(p.Proc()); err != nil || cpu > time.Second {
		t.Errorf("a process that sleeps took %s: %v", cpu, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-p.exited:
	case <-time.After(3 * time.Second):
		t.Error("the process outlived its namespace")
		_ = p.cmd.Process.Kill()
	}
}

func TestDaemonThatFails(t *testing.T) {
	s := newSpace(t)
	defer s.Close()
	p, err := s.Start(exec.Command("sh", "-c", "echo no such luck; exit 3"), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	never := func() error { return errors.New("not yet") }
	err = p.Await(context.Background(), 5*time.Second, never)
	if err == nil || !strings.Contains(err.Error(), "no such luck") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("waiting for it said %v", err)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("stopping what has ended: %v", err)
	}
}

func TestDaemonThatIgnoresSIGTERM(t *testing.T) {
	s := newSpace(t)
	defer s.Close()
	p, err := s.Start(exec.Command("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	err = p.Await(context.Background(), 5*time.Second, func() error {
		if !strings.Contains(p.Log(), "up") {
			return errors.New("not up")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("stopping it said %v", err)
	}
}

func TestBed(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	b, err := New(context.Background(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.ConnectPods(PodMTU); err != nil {
		t.Error(err)
	}
	if err := b.Wire.AddAddr(WireDevice, netip.PrefixFrom(PeerAddr, 24)); err != nil {
		t.Error(err)
	}
	if _, err := b.Wire.Run(context.Background(), exec.Command("ping", "-c1", "-W2", NodeAddr.String())); err != nil {
		t.Error(err)
	}
	link, err := b.Node.Link(HostDevice)
	if err != nil || link.HardwareAddr.String() != GatewayMAC.String() || link.MTU != PodMTU {
		t.Errorf("%s has MAC %s and MTU %d: %v", HostDevice, link.HardwareAddr, link.MTU, err)
	}
	if mode, err := b.Node.XDPMode(HostDevice); err != nil || mode != "" {
		t.Errorf("%s has an XDP program in mode %q: %v", HostDevice, mode, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}
