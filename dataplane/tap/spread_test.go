package tap

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"culvert/internal/sysctl"
)

func TestMaskOfCPUs(t *testing.T) {
	for list, want := range map[string]string{
		"0": "1", "0-1": "3", "0-3,8": "10f", "0-31": "ffffffff", "0-32": "1,ffffffff", "64": "1,00000000,00000000", "31,33": "2,80000000",
	} {
		mask, err := parseCPUs(list)
		if err != nil {
			t.Errorf("%s: %v", list, err)
			continue
		}
		if got := formatMask(mask); got != want {
			t.Errorf("%s: %s, want %s", list, got, want)
		}
	}
	for _, list := range []string{"", "a", "0-", "-1", "0-70000"} {
		if _, err := parseCPUs(list); err == nil {
			t.Errorf("%q was taken", list)
		}
	}
}

// The queues of a pod's TAP spread their flows over the CPUs; the default of the
// pod's namespace is what it was.
func TestReceivingIsSpread(t *testing.T) {
	want := onlineMask()
	if want == "" {
		t.Log("one CPU: nothing to spread over")
		return
	}
	r := newRig(t, true)
	ns := r.addPod(1500, "10.0.0.1/24").ns
	ns.Do(t, func() {
		before, err := os.ReadFile(sysctl.Path(rpsDefault))
		if err != nil {
			t.Fatalf("%v: this test needs Linux 6.3", err)
		}
		if strings.Trim(string(before), "0,\n") != "" {
			t.Errorf("the namespace's default became %s", before)
		}
		// /sys shows the devices of the namespace that it was mounted in.
		out, err := exec.Command("unshare", "-m", "sh", "-c",
			"mount -t sysfs sysfs /sys && cat /sys/class/net/eth0/queues/rx-0/rps_cpus").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := strings.TrimLeft(strings.TrimSpace(string(out)), "0,"); got != want {
			t.Errorf("eth0 spreads over the CPUs %s, want %s", got, want)
		}
	})
}
