package pods

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"culvert/ctrl/api"
)

// badRequests are inputs that a runtime should never send, with the code they
// must get.
var badRequests = []struct {
	name string
	code uint
	edit func(*api.CNIRequest)
}{
	{"no command", 4, func(r *api.CNIRequest) { r.Command = "" }},
	{"unknown command", 4, func(r *api.CNIRequest) { r.Command = strings.Repeat("ADD", 1000) }},
	{"no container", 4, func(r *api.CNIRequest) { r.ContainerID = "" }},
	{"container with slash", 4, func(r *api.CNIRequest) { r.ContainerID = "../../etc/x" }},
	{"container with newline", 4, func(r *api.CNIRequest) { r.ContainerID = "abc\n" }},
	{"container with at", 4, func(r *api.CNIRequest) { r.ContainerID = "a@b" }},
	{"huge container", 4, func(r *api.CNIRequest) { r.ContainerID = strings.Repeat("a", 1<<20) }},
	{"no ifname", 4, func(r *api.CNIRequest) { r.IfName = "" }},
	{"ifname with slash", 4, func(r *api.CNIRequest) { r.IfName = "eth/0" }},
	{"long ifname", 4, func(r *api.CNIRequest) { r.IfName = "eth0123456789abc" }},
	{"huge ifname", 4, func(r *api.CNIRequest) { r.IfName = strings.Repeat("e", 1<<20) }},
	{"dots", 4, func(r *api.CNIRequest) { r.IfName = ".." }},
	{"lo", 4, func(r *api.CNIRequest) { r.IfName = "lo" }},
	{"all", 4, func(r *api.CNIRequest) { r.IfName = "all" }},
	{"pattern", 4, func(r *api.CNIRequest) { r.IfName = "eth%d" }},
	{"control character", 4, func(r *api.CNIRequest) { r.IfName = "et\x01h" }},
	{"no netns", 4, func(r *api.CNIRequest) { r.Netns = "" }},
	{"huge netns", 4, func(r *api.CNIRequest) { r.Netns = strings.Repeat("/x", 1<<20) }},
	{"nul in netns", 4, func(r *api.CNIRequest) { r.Netns = "/run/netns/a\x00b" }},
	{"pod name", 4, func(r *api.CNIRequest) { r.Args["K8S_POD_NAME"] = "a/b" }},
	{"huge pod name", 4, func(r *api.CNIRequest) { r.Args["K8S_POD_NAME"] = strings.Repeat("a", 1<<20) }},
	{"no configuration", 6, func(r *api.CNIRequest) { r.Config = nil }},
	{"array", 6, func(r *api.CNIRequest) { r.Config = json.RawMessage(`[]`) }},
	{"half a configuration", 6, func(r *api.CNIRequest) { r.Config = json.RawMessage(`{"cniVersion":"1.0.0"`) }},
	{"wrong type", 6, func(r *api.CNIRequest) { r.Config = json.RawMessage(`{"cniVersion":1}`) }},
	{"ips of a wrong type", 6, withConf(`{"runtimeConfig":{"ips":"10.244.1.5"}}`)},
	{"no version", 1, withConf(`{"cniVersion":""}`)},
	{"old version", 1, withConf(`{"cniVersion":"0.2.0"}`)},
	{"future version", 1, withConf(`{"cniVersion":"2.0.0"}`)},
	{"no name", 7, withConf(`{"name":""}`)},
	{"bad name", 7, withConf(`{"name":"a/b"}`)},
	{"interface", 7, withConf(`{"interface":"macvlan"}`)},
	{"address", 7, withConf(`{"runtimeConfig":{"ips":["10.244.1.5/99"]}}`)},
	{"address with zone", 7, withConf(`{"runtimeConfig":{"ips":["fe80::1%eth0"]}}`)},
	{"prevResult", 6, withConf(`{"prevResult":[1]}`)},
	{"prevResult version", 6, withConf(`{"prevResult":{"cniVersion":"9.9.9"}}`)},
	{"prevResult holes", 6, withConf(`{"prevResult":{"ips":[null],"interfaces":[null]}}`)},
	{"port", 7, withConf(`{"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"::"},{"hostPort":-80,"containerPort":80}]}}`)},
	{"ports of a wrong type", 6, withConf(`{"runtimeConfig":{"portMappings":{}}}`)},
	{"bandwidth", 2, withConf(`{"runtimeConfig":{"bandwidth":{"ingressRate":1}}}`)},
	{"second in the chain", 7, withConf(`{"prevResult":{"interfaces":[{"name":"eth0","sandbox":"/x"}]}}`)},
	{"MAC", 7, withConf(`{"runtimeConfig":{"mac":"zz"}}`)},
	{"zero MAC", 7, withConf(`{"runtimeConfig":{"mac":"00:00:00:00:00:00"}}`)},
	{"InfiniBand MAC", 7, withConf(`{"runtimeConfig":{"mac":"00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01"}}`)},
}

func TestBadRequests(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	for _, bad := range badRequests {
		r := call("ADD", "c1", "web", bad.edit)
		resp := m.CNI(context.Background(), *r)
		if resp.Code != bad.code || resp.Msg == "" || len(resp.Msg) > 500 {
			t.Errorf("%s: code %d, want %d: %.300s (%s)", bad.name, resp.Code, bad.code, resp.Msg, resp.Details)
		}
		mustBeEmpty(t, m, w)
	}
}

// FuzzCNI throws requests at a manager: it must answer each, never panic, and
// afterwards a DEL of every container must leave nothing.
func FuzzCNI(f *testing.F) {
	for _, bad := range badRequests {
		r := call("ADD", "c1", "web", bad.edit)
		if data, err := json.Marshal(r); err == nil && len(data) < 1<<12 {
			f.Add(data)
		}
	}
	for _, command := range []string{"ADD", "DEL", "CHECK", "GC", "STATUS"} {
		data, _ := json.Marshal(call(command, "c1", "web"))
		f.Add(data)
	}
	data, _ := json.Marshal(call("GC", "", "", withConf(`{"cni.dev/valid-attachments":[],"cni.dev/attachments":null}`)))
	f.Add(data)
	w := newWorld()
	m := newManager(f, w, f.TempDir())
	f.Fuzz(func(t *testing.T, data []byte) {
		var r api.CNIRequest
		if json.Unmarshal(data, &r) != nil {
			return
		}
		resp := m.CNI(context.Background(), r)
		if resp.Code == api.CNIInternal {
			t.Fatalf("a defect: %s: %s", resp.Msg, resp.Details)
		}
		if (resp.Code != 0) != (resp.Msg != "") {
			t.Errorf("code %d with message %q", resp.Code, resp.Msg)
		}
		for _, rec := range m.List() {
			must(t, m, call("DEL", rec.ContainerID, "", func(d *api.CNIRequest) { d.IfName = rec.IfName }))
		}
		mustBeEmpty(t, m, w)
	})
}
