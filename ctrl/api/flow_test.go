package api_test

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"culvert/ctrl/api"
	"culvert/ctrl/api/apitest"
	"culvert/dataplane/flow"
	"culvert/internal/packet"
)

func TestFlowFilterSelects(t *testing.T) {
	flows := apitest.New().FlowList // tcp, udp, icmp, 47
	for _, c := range []struct {
		query string
		want  string
	}{
		{"", "tcp udp icmp 47 "},
		{"proto=TCP", "tcp "},
		{"proto=6", "tcp "},
		{"proto=47", "47 "},
		{"proto=ipip", ""},
		{"state=unreplied", "udp 47 "},
		{"src=10.244.1.2", "tcp udp icmp 47 "},
		{"src=10.244.2.3", ""},
		{"addr=10.244.2.3", "tcp udp icmp 47 "},
		{"addr=10.244.9.0/24", ""},
		{"dst=10.244.2.99/24", "tcp udp icmp 47 "},
		{"dport=80", "tcp "},
		{"dport=80&sport=1", ""},
		{"src=fd00::/8", ""},
	} {
		v, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		q, err := api.ParseFlowFilter(v)
		if err != nil {
			t.Fatal(err)
		}
		again, err := api.ParseFlowFilter(q.Query())
		if err != nil || again != q {
			t.Errorf("%q: read back as %+v, %v; want %+v", c.query, again, err, q)
		}
		got := ""
		for i := range flows {
			if q.Match(&flows[i]) {
				got += flows[i].Proto + " "
			}
		}
		if got != c.want {
			t.Errorf("%q selects %q, want %q", c.query, got, c.want)
		}
	}
}

func TestFlowFilterRefuses(t *testing.T) {
	for _, query := range []string{"src=x", "dst=1.2.3.4/33", "addr=fe80::1%25eth0", "sport=65536", "dport=-1",
		"proto=foo", "proto=", "proto=256", "proto=-1", "proto=unknown", "state=nope", "state=NONE", "state=", "src=", "protocol=tcp", "Proto=tcp",
		"=", "src=10.0.0.1&src=10.0.0.2"} {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := api.ParseFlowFilter(v); err == nil {
			t.Errorf("%q was read as %+v", query, q)
		}
	}
}

// Every state that a flow can have is one to filter by.
func TestFlowStates(t *testing.T) {
	states := api.FlowStates()
	for s := flow.None + 1; s < flow.States; s++ {
		if got, err := api.ParseFlowState(strings.ToLower(s.String())); err != nil || got != s.String() {
			t.Errorf("state %s: %q, %v", s, got, err)
		}
	}
	if len(states) != int(flow.States)-1 {
		t.Errorf("%d states: %v", len(states), states)
	}
}

// Every protocol is one to filter by, with its number and its name.
func TestParseProto(t *testing.T) {
	for p := range 256 {
		name := packet.ProtoName(uint8(p))
		for _, s := range []string{name, strings.ToUpper(name), strconv.Itoa(p)} {
			if got, err := api.ParseProto(s); err != nil || got != name {
				t.Errorf("%q: %q, %v", s, got, err)
			}
		}
	}
}

func TestParsePrefix(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1": "10.0.0.1/32", "10.0.0.1/8": "10.0.0.0/8", "fd00::1": "fd00::1/128", "::ffff:10.0.0.1": "10.0.0.1/32",
	} {
		if got, err := api.ParsePrefix(in); err != nil || got != netip.MustParsePrefix(want) {
			t.Errorf("ParsePrefix(%q) = %v, %v; want %s", in, got, err, want)
		}
	}
}

// FuzzParseFlowFilter: any query is refused, or reads back as itself.
func FuzzParseFlowFilter(f *testing.F) {
	for _, seed := range []string{"", "proto=tcp&dport=80", "src=10.0.0.1", "dst=10.0.0.0/8&addr=fd00::/8", "sport=65536", "proto=6&state=close", "proto=x", "sport=1&sport=2", "src=::ffff:1.2.3.4/100"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		q, err := api.ParseFlowFilter(v)
		if err != nil {
			return
		}
		if again, err := api.ParseFlowFilter(q.Query()); err != nil || again != q {
			t.Errorf("%q is %+v, read back %+v, %v", query, q, again, err)
		}
	})
}
