package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/api/apitest"
	"culvert/ctrl/metrics"
)

var (
	_ Backend        = (*apitest.Agent)(nil)
	_ metrics.Source = (*apitest.Agent)(nil)
)

// serve runs a on a real socket until the test ends.
func serve(t *testing.T, a *apitest.Agent) *api.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "culvert.sock")
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, Handler(a), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket was left behind: %v", err)
		}
	})
	return api.NewClient(path)
}

func TestGetsOverTheSocket(t *testing.T) {
	a := apitest.New()
	c := serve(t, a)
	for path, want := range map[string]any{
		"/v1/status": a.State, "/v1/ports": a.PortList, "/v1/routes": a.RouteList, "/v1/fdb": a.FDBList,
		"/v1/neighbours": a.Neighs, "/v1/peers": a.PeerList, "/v1/pods": a.PodList, "/v1/flows": a.FlowList,
		"/v1/drops": a.DropList, "/v1/flows?proto=tcp": a.FlowList[:1], "/v1/route?address=10.244.2.3": a.RouteList[3],
		"/v1/ipam": a.Addresses, "/v1/ipam/address?address=10.244.1.3": a.AddressList[1],
		"/v1/route?address=::ffff:10.244.2.3": a.RouteList[3],
	} {
		got := reflect.New(reflect.TypeOf(want))
		if err := c.Get(t.Context(), path, got.Interface()); err != nil {
			t.Errorf("%s: %v", path, err)
		} else if !reflect.DeepEqual(got.Elem().Interface(), want) {
			t.Errorf("%s: got %+v\nwant %+v", path, got.Elem(), want)
		}
	}
}

func TestEmptyTablesAreArrays(t *testing.T) {
	c := serve(t, &apitest.Agent{})
	for _, path := range []string{"ports", "routes", "fdb", "neighbours", "peers", "pods", "flows", "drops"} {
		var raw json.RawMessage
		if err := c.Get(t.Context(), "/v1/"+path, &raw); err != nil || string(raw) != "[]" {
			t.Errorf("%s of an empty agent is %s, %v; want []", path, raw, err)
		}
	}
	var raw json.RawMessage
	if err := c.Get(t.Context(), "/v1/status", &raw); err != nil || !bytes.Contains(raw, []byte(`"workers":[],"uplinks":[]`)) {
		t.Errorf("status of an empty agent is %s, %v", raw, err)
	}
}

func TestPosts(t *testing.T) {
	a := apitest.New()
	a.CNIValue = api.CNIResponse{Code: 11, Msg: "try again"}
	c := serve(t, a)
	filter := api.FlowFilter{Proto: "tcp"}
	var flushed api.Flushed
	if err := c.Post(t.Context(), "/v1/flows/flush", &filter, &flushed); err != nil || flushed.Flushed != 1 {
		t.Errorf("flush: %+v, %v", flushed, err)
	}
	trace := api.TraceRequest{Src: "10.244.1.2", Dst: "10.9.0.1", Proto: "tcp"}
	var result api.TraceResult
	if err := c.Post(t.Context(), "/v1/trace", &trace, &result); err != nil || !reflect.DeepEqual(result, a.TraceValue) {
		t.Errorf("trace: %+v, %v", result, err)
	}
	cni := api.CNIRequest{Command: api.CNIAdd, ContainerID: "c", Config: json.RawMessage(`{"a":1}`)}
	var response api.CNIResponse
	if err := c.Post(t.Context(), api.PathCNI, &cni, &response); err != nil || !reflect.DeepEqual(response, a.CNIValue) {
		t.Errorf("cni: %+v, %v", response, err)
	}
	check := api.IPAMCheckRequest{Repair: true}
	var compared api.IPAMCheck
	if err := c.Post(t.Context(), "/v1/ipam/check", &check, &compared); err != nil || len(compared.Findings) != 2 || !compared.Findings[0].Repaired {
		t.Errorf("ipam check: %+v, %v", compared, err)
	}
	if got, want := a.Seen(), []any{filter, trace, cni, check}; !reflect.DeepEqual(got, want) {
		t.Errorf("the agent saw %+v, want %+v", got, want)
	}
}

func TestFlush(t *testing.T) {
	a := apitest.New()
	c := serve(t, a)
	for _, f := range []struct {
		filter *api.FlowFilter
		want   int
	}{
		{&api.FlowFilter{Proto: "17", State: "unreplied"}, 1},
		{&api.FlowFilter{Proto: "SCTP"}, 0},
		{&api.FlowFilter{}, len(a.FlowList)},
	} {
		var got api.Flushed
		if err := c.Post(t.Context(), "/v1/flows/flush", f.filter, &got); err != nil || got.Flushed != f.want {
			t.Errorf("flush %+v: %+v, %v; want %d", f.filter, got, err, f.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	h := Handler(apitest.New())
	for _, c := range []struct {
		method, path, body string
		status             int
		message            string
	}{
		{"GET", "/v1/route?address=10.77.0.1", "", 404, "no route to 10.77.0.1"},
		{"GET", "/v1/route?address=nonsense", "", 400, `address: "nonsense" is no IP address`},
		{"GET", "/v1/route", "", 400, `address: "" is no IP address`},
		{"GET", "/v1/flows?sport=99999", "", 400, `sport: "99999" is no port number`},
		{"GET", "/v1/flows?protocol=tcp", "", 400, `protocol: there is no such filter`},
		{"GET", "/v1/flows?proto=tcp&proto=udp", "", 400, `proto is given 2 times`},
		{"GET", "/v1/flows?proto=foo", "", 400, `proto: "foo" is no protocol`},
		{"GET", "/v1/flows?state=nope", "", 400, `state: "NOPE" is no state`},
		{"GET", "/v1/flows?src=%zz", "", 400, `query: `},
		{"POST", "/v1/flows/flush", "", 400, "a JSON object is needed"},
		{"POST", "/v1/flows/flush", " \n", 400, "a JSON object is needed"},
		{"POST", "/v1/flows/flush", "null", 400, "a JSON object is needed"},
		{"POST", "/v1/flows/flush", "[]", 400, "request body: "},
		{"POST", "/v1/flows/flush", "{", 400, "request body: "},
		{"POST", "/v1/flows/flush", "{} null", 400, "more than one"},
		{"POST", "/v1/flows/flush", `{"proto":"foo"}`, 400, `proto: "foo" is no protocol`},
		{"POST", "/v1/flows/flush", `{"state":"nope"}`, 400, `state: "NOPE" is no state`},
		{"POST", "/v1/flows/flush", `{"proto":"256"}`, 400, `proto: "256" is no protocol`},
		{"POST", "/v1/trace", "null", 400, "a JSON object is needed"},
		{"GET", "/v1/nothing", "", 404, "no such call"},
		{"POST", "/v1/status", "", 404, "no such call"},
		{"POST", "/v1/trace", `{"src":1}`, 400, "request body: "},
		{"POST", "/v1/trace", `{"sauce":"1.2.3.4"}`, 400, `unknown field "sauce"`},
		{"POST", "/v1/trace", `{} {}`, 400, "more than one"},
		{"POST", "/v1/trace", `{"port":"nowhere"}`, 404, "there is no port nowhere"},
		{"POST", "/v1/trace", `"` + strings.Repeat("x", maxBody) + `"`, 400, "too large"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		var e api.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
			t.Errorf("%s %s: answer %q is no JSON", c.method, c.path, w.Body)
		}
		if w.Code != c.status || !strings.Contains(e.Message, c.message) {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.path, w.Code, e.Message, c.status, c.message)
		}
	}
}

func TestOps(t *testing.T) {
	a := apitest.New()
	page := func(path string) (int, string) {
		h := OpsHandler(a, metrics.New(a, "v1").Handler())
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	expect := func(path string, code int, text string) {
		t.Helper()
		if c, body := page(path); c != code || !strings.Contains(body, text) {
			t.Errorf("%s: %d %q, want %d %q", path, c, body, code, text)
		}
	}
	expect("/healthz", 200, "ok\n")
	expect("/readyz", 200, "ready\n")
	expect("/metrics", 200, "culvert_peers 1\n")
	expect("/debug/pprof/", 200, "goroutine")
	expect("/nothing", 404, "")
	a.State.Ready = false
	expect("/readyz", 503, "not ready: starting\n")
	a.State.Reasons = []string{"uplink eth0 is down", "no object for node worker-1"}
	expect("/readyz", 503, "not ready: uplink eth0 is down\nnot ready: no object for node worker-1\n")
	a.Unhealthy = errors.New("worker 0 has not moved for 10s")
	expect("/healthz", 503, "worker 0 has not moved for 10s")
}

// TestStopCutsOffSlowClients: a client that does not read its answer must not
// keep the agent from stopping.
func TestStopCutsOffSlowClients(t *testing.T) {
	a := apitest.New()
	for len(a.FlowList) < 1<<14 {
		a.FlowList = append(a.FlowList, a.FlowList...)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, Handler(a), slog.New(slog.DiscardHandler)) }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/flows HTTP/1.1\r\nHost: culvert\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(shutdownGrace + 5*time.Second):
		t.Error("Serve did not return")
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the socket still answers")
	}
}
