package pods

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"culvert/ctrl/api"
)

// withPorts asks for port mappings, given as JSON objects.
func withPorts(list string) func(*api.CNIRequest) {
	return withConf(`{"runtimeConfig":{"portMappings":[` + list + `]}}`)
}

// TestPortMappings: as containerd (capitals) and CRI-O write them, kept over a restart,
// and handed to the dataplane.
func TestPortMappings(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	m := newManager(t, w, dir)
	must(t, m, call("ADD", "c1", "web", withPorts(
		`{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""},`+
			`{"hostPort":53,"containerPort":5353,"protocol":"UDP","hostIP":"::ffff:192.0.2.1"},`+
			`{"hostPort":53,"containerPort":5353,"protocol":"udp","hostIP":"192.0.2.1"},`+
			`{"hostPort":0,"containerPort":9090,"protocol":"tcp"},`+
			`{"hostPort":65535,"containerPort":1,"protocol":"SCTP","hostIP":"2001:DB8::0"},`+
			`{"hostPort":53,"containerPort":53}`)))
	want := []PortMapping{{8080, 80, "tcp", ""}, {53, 5353, "udp", "192.0.2.1"}, {65535, 1, "sctp", "2001:db8::"}, {53, 53, "tcp", ""}}
	if got := w.attached[Key{"c1", "eth0"}].PortMappings; !slices.Equal(got, want) {
		t.Errorf("attached with %v, want %v", got, want)
	}
	if got := m.List()[0].API().PortMappings; len(got) != 4 || got[1].HostIP != "192.0.2.1" || got[1].Protocol != "udp" {
		t.Errorf("API: %+v", got)
	}
	w = w.afterCrash()
	m = newManager(t, w, dir)
	if err := m.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := w.attached[Key{"c1", "eth0"}].PortMappings; !slices.Equal(got, want) {
		t.Errorf("attached again with %v, want %v", got, want)
	}
	must(t, m, call("DEL", "c1", "web"))
	mustBeEmpty(t, m, w)
}

// TestRecordsOfBefore: a record without port mappings, and one of a file that somebody changed.
func TestRecordsOfBefore(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	m := newManager(t, w, dir)
	must(t, m, call("ADD", "c1", "old"))
	must(t, m, call("ADD", "c2", "bad", withPorts(`{"hostPort":80,"containerPort":80}`)))
	old, err := os.ReadFile(m.store.path(Key{"c1", "eth0"}))
	if err != nil || strings.Contains(string(old), "portMappings") {
		t.Fatalf("a record without port mappings: %s, %v", old, err)
	}
	path := m.store.path(Key{"c2", "eth0"})
	bad, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(bad), `"tcp"`, `"TCP"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	m = newManager(t, w.afterCrash(), dir)
	if err := m.Restore(context.Background()); err == nil || !strings.Contains(err.Error(), "80->80/TCP") {
		t.Errorf("a changed record: %v", err)
	}
	if l := m.List(); len(l) != 1 || l[0].Pod != "old" || l[0].PortMappings != nil {
		t.Errorf("records: %+v", l)
	}
}

func TestBadPortMappings(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	for list, want := range map[string]string{
		`{"hostPort":65536,"containerPort":80}`:                                            "host port 65536",
		`{"hostPort":-1,"containerPort":80}`:                                               "host port -1",
		`{"hostPort":80}`:                                                                  "container port 0",
		`{"hostPort":80,"containerPort":70000}`:                                            "container port 70000",
		`{"hostPort":80,"containerPort":80,"protocol":"icmp"}`:                             "icmp",
		`{"hostPort":80,"containerPort":80,"hostIP":"node-1"}`:                             "node-1",
		`{"hostPort":80,"containerPort":80,"hostIP":"fe80::1%eth0"}`:                       "fe80::1%eth0",
		`{"hostPort":80,"containerPort":80,"hostIP":"224.0.0.1"}`:                          "224.0.0.1",
		`{"hostPort":80,"containerPort":80},{"hostPort":80,"containerPort":81}`:            "same port",
		strings.Repeat(`{},`, maxPortMappings) + `{}`:                                      "at most 1024",
		`{"hostPort":80,"containerPort":80,"protocol":"` + strings.Repeat("x", 900) + `"}`: "xxx",
	} {
		mustFail(t, m, call("ADD", "c1", "web", withPorts(list)), api.CNIInvalidConfig, want)
	}
	mustFail(t, m, call("ADD", "c1", "web", withPorts(`{"hostPort":"80"}`)), api.CNIDecodingFailure, "")
	mustBeEmpty(t, m, w)
}

// TestHostPortTaken: two pods cannot have one port of the node, unless they have it on
// different addresses.
func TestHostPortTaken(t *testing.T) {
	port := func(hostIP, protocol string) func(*api.CNIRequest) {
		return withPorts(fmt.Sprintf(`{"hostPort":80,"containerPort":80,"protocol":%q,"hostIP":%q}`, protocol, hostIP))
	}
	for _, c := range []struct {
		first, second, protocol string
		taken                   bool
	}{
		{"", "", "tcp", true}, {"", "", "udp", false}, {"", "192.0.2.1", "tcp", true}, {"192.0.2.1", "", "tcp", true},
		{"192.0.2.1", "192.0.2.1", "tcp", true}, {"192.0.2.1", "192.0.2.2", "tcp", false}, {"0.0.0.0", "192.0.2.2", "tcp", true},
		{"::", "192.0.2.2", "tcp", false}, {"2001:db8::1", "::", "tcp", true}, {"0.0.0.0", "::", "tcp", false},
	} {
		w := newWorld()
		m := newManager(t, w, t.TempDir())
		must(t, m, call("ADD", "c1", "a", port(c.first, "tcp")))
		if !c.taken {
			must(t, m, call("ADD", "c2", "b", port(c.second, c.protocol)))
			mustAgree(t, m, w)
			continue
		}
		mustFail(t, m, call("ADD", "c2", "b", port(c.second, c.protocol)), api.CNIHostPortTaken, "default/a has the mapping")
		mustAgree(t, m, w)
		must(t, m, call("DEL", "c1", "a"))
		must(t, m, call("ADD", "c2", "b", port(c.second, c.protocol)))
		mustAgree(t, m, w)
		// The pod's next container takes over, and one whose link is gone has nothing any more.
		must(t, m, call("ADD", "c3", "b", port(c.second, c.protocol)))
		rec := m.List()[0]
		delete(w.links, rec.HostName)
		m.LinkGone(rec.Ifindex)
		must(t, m, call("ADD", "c4", "d", port(c.first, "tcp")))
	}
}

// TestPromises: what we cannot keep is refused, and what asks nothing of us is not.
func TestPromises(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	for _, config := range []string{`"bandwidth":{"IngressRate":1000}`, `"ipRanges":[[{"subnet":"10.1.0.0/16"}]]`, `"deviceID":"0000:00:1f.6"`,
		`"infinibandGUID":"c2:11:22:33:44:55:66:77"`} {
		mustFail(t, m, call("ADD", "c1", "web", withConf(`{"runtimeConfig":{`+config+`}}`)), api.CNIUnsupportedField, config[1:5])
	}
	mustBeEmpty(t, m, w)
	must(t, m, call("ADD", "c1", "web", withConf(`{"runtimeConfig":{"bandwidth":null,"ipRanges":[],"deviceID":"","dns":{"servers":["192.0.2.53"]},`+
		`"aliases":["a"],"cgroupPath":"/x","io.kubernetes.cri.pod-annotations":{"a":"b"}}}`)))
	must(t, m, call("DEL", "c1", "web", withConf(`{"runtimeConfig":{"bandwidth":{"ingressRate":1}}}`)))
	mustBeEmpty(t, m, w)
}

// FuzzPortMappings: what is taken of a runtime's list is what a record may hold, and leads
// each port of the node to one place.
func FuzzPortMappings(f *testing.F) {
	f.Add([]byte(`[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""},{"hostPort":8080,"containerPort":81,"protocol":"UDP","hostIP":"::"}]`))
	f.Add([]byte(`[{"hostPort":80,"containerPort":80,"hostIP":"0.0.0.0"},{"hostPort":80,"containerPort":81,"hostIP":"::ffff:192.0.2.1"}]`))
	f.Add([]byte(`[{"hostPort":-1},{"hostPort":65536,"containerPort":1e3}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var wishes []wishedPort
		if json.Unmarshal(data, &wishes) != nil {
			return
		}
		all, err := parsePortMappings(wishes)
		if err != nil {
			return
		}
		for i, m := range all {
			if err := m.validate(); err != nil {
				t.Errorf("%s: %v", m, err)
			}
			for _, n := range all[:i] {
				if m == n || m.clashes(n) != n.clashes(m) || m.clashes(n) && m.ContainerPort != n.ContainerPort {
					t.Errorf("%s and %s", m, n)
				}
			}
		}
	})
}
