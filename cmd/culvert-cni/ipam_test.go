package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/ctrl/api"
)

// ipamScript stands for calico-ipam: it notes its calls, and fails one command.
const ipamScript = `#!/bin/sh
grep -q '"calico-ipam"' || exit 3
echo "$CNI_COMMAND $CNI_CONTAINERID" >> DIR/calls
if [ "$CNI_COMMAND" = "FAIL" ]; then
	echo '{"cniVersion":"1.0.0","code":11,"msg":"the datastore is locked","details":"wait"}'
	exit 1
fi
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.65.0.7/32"},{"address":"fd00::7/128"}]}'
`

func TestCalicoIPAM(t *testing.T) {
	conf := strings.Replace(config("1.1.0"), "{", `{"ipam":{"type":"calico-ipam"},`, 1)
	refused := func(api.CNIRequest) (int, any) { return 200, api.CNIResponse{Code: 5, Msg: "no"} }
	t.Setenv("CNI_CONTAINERID", "c1")
	for _, tt := range []struct {
		command, fail string
		answer        func(api.CNIRequest) (int, any)
		calls, given  string
		code          uint
		asked         int
	}{
		{"ADD", "", ok, "ADD", "[10.65.0.7 fd00::7]", 0, 1},
		{"ADD", "ADD", ok, "ADD", "", 11, 0},
		{"ADD", "", refused, "ADD DEL", "[10.65.0.7 fd00::7]", 5, 1},
		{"ADD", "DEL", refused, "ADD DEL", "[10.65.0.7 fd00::7]", 5, 1},
		{"DEL", "", ok, "DEL", "[]", 0, 1},
		{"DEL", "", refused, "", "[]", 5, 1},
		{"DEL", "DEL", ok, "DEL", "[]", 11, 1},
		{"CHECK", "", ok, "CHECK", "[]", 0, 1},
		{"STATUS", "STATUS", ok, "STATUS", "[]", 11, 1},
		{"GC", "", ok, "GC", "[]", 0, 1},
		{"GC", "", refused, "GC", "[]", 5, 1},
		{"GC", "GC", refused, "GC", "[]", 5, 1},
	} {
		t.Run(tt.command+tt.fail, func(t *testing.T) {
			a, dir := newAgent(t, tt.answer), t.TempDir()
			script := strings.ReplaceAll(strings.ReplaceAll(ipamScript, "DIR", dir), "FAIL", tt.fail)
			if err := os.WriteFile(filepath.Join(dir, calicoIPAM), []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			t.Setenv("CNI_COMMAND", tt.command)
			_, _, cerr := a.run(conf, "CNI_COMMAND="+tt.command, "CNI_PATH=/nowhere:"+dir)
			calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
			if got := strings.Join(strings.Fields(strings.ReplaceAll(string(calls), "c1", "")), " "); cerr.Code != tt.code || got != tt.calls || len(a.seen) != tt.asked {
				t.Errorf("%+v after %q, %d requests", cerr, got, len(a.seen))
			}
			if tt.asked > 0 && fmt.Sprint(a.seen[0].Given) != tt.given {
				t.Errorf("the agent hears of %v", a.seen[0].Given)
			}
		})
	}
	// Where it is missing nothing is done; another one's name changes nothing.
	a := newAgent(t, ok)
	if _, _, cerr := a.run(conf, "CNI_COMMAND=ADD", "CNI_PATH=/nowhere"); cerr.Code != api.CNIInvalidConfig || len(a.seen) != 0 {
		t.Errorf("%+v", cerr)
	}
	if code, _, cerr := a.run(strings.Replace(conf, "calico-ipam", "host-local", 1), "CNI_COMMAND=ADD"); code != 0 || len(a.seen) != 1 {
		t.Errorf("%+v", cerr)
	}
}
