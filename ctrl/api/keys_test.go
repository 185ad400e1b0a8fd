package api_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"culvert/ctrl/api"
	"culvert/ctrl/api/apitest"
)

// keys are the JSON paths of v with their JSON types, sorted.
func keys(t *testing.T, v any) []string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var decoded any
	if err := json.Unmarshal(b, &decoded); err != nil {
		t.Fatal(err)
	}
	var all []string
	var walk func(path string, v any)
	walk = func(path string, v any) {
		kind := map[reflect.Kind]string{reflect.String: "string", reflect.Float64: "number", reflect.Bool: "bool",
			reflect.Slice: "array", reflect.Map: "object"}[reflect.ValueOf(v).Kind()]
		if path != "" {
			all = append(all, path+" "+kind)
		}
		if m, ok := v.(map[string]any); ok {
			for k, sub := range m {
				walk(strings.TrimPrefix(path+"."+k, "."), sub)
			}
		}
	}
	walk("", decoded)
	slices.Sort(all)
	return all
}

// TestContractKeys holds the JSON forms that other programs read: these keys,
// with these types, must be there whatever else is.
func TestContractKeys(t *testing.T) {
	a := apitest.New()
	for _, c := range []struct {
		name  string
		value any
		want  []string
	}{
		{"status", a.State, []string{"ready bool", "node string", "mode string", "encap string", "mtu number",
			"workers array", "uplinks array", "peers number", "conflicts array"}},
		{"port", a.PortList[0], []string{"name string", "kind string", "queues number", "xdp object", "xdp.mode string",
			"xdp.zerocopy bool", "rx object", "rx.packets number", "rx.bytes number", "tx object", "tx.packets number",
			"tx.bytes number", "drops number"}},
		{"route", a.RouteList[3], []string{"dst string", "kind string", "via string", "dev string", "mac string",
			"vni number", "protocol string"}},
		{"fdb", a.FDBList[0], []string{"mac string", "dst string", "vni number", "flags array"}},
		{"flow", a.FlowList[0], []string{"proto string", "state string", "src string", "dst string", "sport number",
			"dport number", "reply object", "reply.src string", "reply.dst string", "reply.sport number",
			"reply.dport number", "packets number", "bytes number", "timeout number"}},
		{"drops", a.DropList[0], []string{"reason string", "port string", "packets number"}},
		// Zero values keep every key: a client must not meet a missing one.
		{"zero status", api.Status{Workers: []api.Worker{}, Uplinks: []api.Uplink{}}, []string{"ready bool", "node string", "mode string",
			"encap string", "mtu number", "workers array", "uplinks array", "peers number"}},
		{"zero port", api.Port{}, []string{"name string", "kind string", "queues number", "xdp.mode string", "xdp.zerocopy bool",
			"rx.packets number", "rx.bytes number", "tx.packets number", "tx.bytes number", "drops number"}},
		{"zero flow", api.Flow{}, []string{"sport number", "dport number", "reply.sport number", "packets number", "timeout number"}},
		{"zero drop", api.Drop{}, []string{"reason string", "port string", "packets number"}},
	} {
		have := keys(t, c.value)
		for _, k := range c.want {
			if !slices.Contains(have, k) {
				t.Errorf("%s: key %q is missing; there are %q", c.name, k, have)
			}
		}
		for _, k := range have {
			if name, _, _ := strings.Cut(k, " "); name != strings.ToLower(name) {
				t.Errorf("%s: key %q is not lower-case", c.name, k)
			}
		}
	}
}

// TestAbsentRouteKeys: a route says only what it has.
func TestAbsentRouteKeys(t *testing.T) {
	got := keys(t, api.Route{Dst: "10.0.0.0/8", Kind: "blackhole"})
	if want := []string{"dst string", "kind string"}; !slices.Equal(got, want) {
		t.Errorf("a blackhole has keys %q, want %q", got, want)
	}
}

func TestErrorOnTheWire(t *testing.T) {
	err := api.NotFound("no route to %s", "10.9.9.9")
	b, _ := json.Marshal(err)
	if got, want := string(b), `{"error":"no route to 10.9.9.9"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, c := range []struct {
		err  error
		want int
	}{
		{err, 404}, {fmt.Errorf("looking: %w", err), 404}, {api.Invalid("x"), 400},
		{api.Unavailable("x"), 503}, {fmt.Errorf("other"), 500},
	} {
		if got := api.StatusOf(c.err); got != c.want {
			t.Errorf("StatusOf(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}
