package main

import (
	"bytes"
	"strings"
	"testing"

	"culvert/ctrl/api"
	"culvert/ctrl/api/apitest"
)

// TestIPAMCheck: what is found, what to do, and the exit code.
func TestIPAMCheck(t *testing.T) {
	agent := apitest.New()
	socket := serve(t, agent)
	const head = "compared: 2 records of pods, 3 owners of addresses\nskipped: Pods at the API server: forbidden\n"
	const stray = "stray_link cv0123456789b: the link is a pod's (default/old eth0 10.244.1.7), and there is no record of it; ip link del cv0123456789b, if the pod is gone\n"
	const unowned = "unowned 10.244.1.9 fedcba@eth0: the address is taken, and no record names its container; "
	check := func(args, want, wantErr string, wantCode int) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append(strings.Fields(args), "--socket", socket), &stdout, &stderr)
		if code != wantCode || !strings.HasPrefix(stdout.String(), want) || stderr.String() != wantErr {
			t.Errorf("culvert %s: exit code %d\n%s\n%s\nwant %d\n%s\n%s", args, code, &stdout, &stderr, wantCode, want, wantErr)
		}
	}
	check("ipam check", head+unowned+"culvert ipam check --repair\n"+stray, "culvert: 2 findings\n", 1)
	check("ipam check --repair", head+unowned+"repaired\n"+stray, "culvert: 1 finding\n", 1)
	check("ipam check -o json", "{\n  \"compared\": [", "culvert: 2 findings\n", 1)
	check("ipam show nothing", "", "culvert: \"nothing\" is no IP address\nsee 'culvert ipam show --help'\n", 2)
	agent.Compared.Findings = []api.IPAMFinding{}
	check("ipam check", head, "", 0)
}
