package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"culvert/ctrl/api"
	"culvert/internal/lab"
)

// ipNetns adds or deletes a pod's namespace.
func ipNetns(t *testing.T, verb string, p *lab.Pod) {
	t.Helper()
	if out, err := exec.Command("ip", "netns", verb, p.Netns).CombinedOutput(); err != nil {
		t.Fatalf("ip netns %s %s: %v\n%s", verb, p.Netns, err, out)
	}
}

// After a boot the state directory tells of pods that nothing is left of: they are
// forgotten, and containerd's DELs for them succeed, before and after. A pod whose
// namespace went while culvertd was up is kept until its DEL.
func TestRebootAndVanishedNamespaces(t *testing.T) {
	c := up(t, lab.Options{Pods: 4, Interfaces: []string{"veth", "tap"}})
	n, far := c.Nodes[0], c.Nodes[1].Pods[0]
	del := func(p *lab.Pod) {
		t.Helper()
		if _, err := c.CNI(context.Background(), n, p, "DEL"); err != nil {
			t.Errorf("DEL of %s: %v", p.Name, err)
		}
	}
	listed := func() (names []string) {
		for _, p := range culvertJSON[[]api.Pod](t, n, "pod") {
			names = append(names, p.Name+" "+p.State)
		}
		return names
	}
	// While culvertd is up.
	for _, p := range n.Pods[2:] {
		ipNetns(t, "del", p)
	}
	eventually(t, "their pods are gone", func() error {
		if now := fmt.Sprint(listed()); now != "[a1 ready a2 ready a3 gone a4 gone]" {
			return fmt.Errorf("%s", now)
		}
		return nil
	})
	del(n.Pods[2])
	// The machine goes down: nothing but the disk is left, and a1's namespace has a successor
	// of the same name.
	if err := c.StopAgent(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, p := range n.Pods[:2] {
		ipNetns(t, "del", p)
	}
	must(t, n.Netns, "ip", "link", "del", "culvert0")
	if err := os.Remove(n.Socket); err != nil {
		t.Fatal(err)
	}
	ipNetns(t, "add", n.Pods[0])
	del(n.Pods[1]) // culvertd is not up yet: kept for it
	if err := c.StartAgent(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	if now := listed(); len(now) != 0 {
		t.Errorf("after the boot there are pods %v", now)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(n.Socket), "state", "pods", "*")); len(left) != 0 {
		t.Errorf("records %v are left", left)
	}
	for _, p := range n.Pods {
		del(p)
	}
	// The pods come back, with new containers.
	var addrs []string
	for i, p := range n.Pods {
		p.ContainerID += "b"
		if i > 0 {
			ipNetns(t, "add", p)
		}
		out, err := c.CNI(context.Background(), n, p, "ADD")
		if err != nil {
			t.Fatal(err)
		}
		var result struct {
			IPs []struct{ Address string } `json:"ips"`
		}
		if err := json.Unmarshal(out, &result); err != nil || len(result.IPs) != 1 {
			t.Fatalf("ADD of %s: %s, %v", p.Name, out, err)
		}
		addrs = append(addrs, result.IPs[0].Address)
		must(t, p.Netns, "ping", "-n", "-c", "1", "-W", "2", far.Addr.String())
	}
	if slices.Sort(addrs); len(slices.Compact(addrs)) != 4 {
		t.Errorf("addresses %v", addrs)
	}
}

// culvertd tells of a state directory that a newer one has left in another form, in one
// line, and leaves it as it is.
func TestDowngradeToAnotherForm(t *testing.T) {
	c := up(t, lab.Options{Nodes: 1, Pods: 2})
	n := c.Nodes[0]
	form := filepath.Join(filepath.Dir(n.Socket), "state", "state.json")
	restart := func(text string) error {
		if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(form, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return c.StartAgent(context.Background(), n)
	}
	if err := restart(`{"format":1,"culvertd":"v99","more":1}`); err != nil {
		t.Errorf("a newer version, the same form: %v", err)
	}
	const want = "culvertd v99 has left it in form 2"
	if err := restart(`{"format":2,"culvertd":"v99"}`); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("another form: %v", err)
	}
	log, err := os.ReadFile(n.LogFile)
	if err != nil || strings.Count(string(log), "level=ERROR") != 1 {
		t.Errorf("culvertd said (%v)\n%s", err, log)
	}
	if err := os.Truncate(n.LogFile, 0); err != nil { // the error is what was wanted
		t.Fatal(err)
	}
	if err := restart(`{"format":1,"culvertd":"v99"}`); err != nil {
		t.Fatal(err)
	}
	must(t, n.Pods[0].Netns, "ping", "-n", "-c", "1", "-W", "2", n.Pods[1].Addr.String())
}
