package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/ctrl/api"
)

// agent is a culvertd that answers what the test says.
type agent struct {
	socket string
	answer func(api.CNIRequest) (int, any)
	seen   []api.CNIRequest
}

// newAgent serves on a socket in a directory of its own, unless answer is nil:
// then nobody does.
func newAgent(t *testing.T, answer func(api.CNIRequest) (int, any)) *agent {
	a := &agent{socket: filepath.Join(t.TempDir(), "culvert.sock"), answer: answer}
	if answer != nil {
		a.start(t)
	}
	return a
}

func (a *agent) start(t *testing.T) {
	l, err := net.Listen("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req api.CNIRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.URL.Path != api.PathCNI || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		a.seen = append(a.seen, req)
		status, body := a.answer(req)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

func ok(api.CNIRequest) (int, any) { return 200, api.CNIResponse{} }

// run calls the plugin; env is "NAME=VALUE ..." over usual values.
func (a *agent) run(config string, env ...string) (code int, out string, cerr cniError) {
	vars := map[string]string{"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0",
		"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web", "CNI_PATH": "/opt/cni/bin"}
	for _, e := range env {
		k, v, _ := strings.Cut(e, "=")
		vars[k] = v
	}
	config = strings.ReplaceAll(config, "SOCKET", a.socket)
	var stdout, stderr bytes.Buffer
	p := &plugin{getenv: func(k string) string { return vars[k] }, stdin: strings.NewReader(config), stdout: &stdout, stderr: &stderr}
	code = p.run()
	if code != 0 && stdout.Len() > 0 {
		dec := json.NewDecoder(&stdout)
		if err := dec.Decode(&cerr); err != nil || dec.Decode(&struct{}{}) != io.EOF {
			cerr.Msg = "not one JSON object: " + stdout.String()
		}
		return code, "", cerr
	}
	return code, strings.TrimSpace(stdout.String()), cerr
}

func config(version string) string {
	return `{"cniVersion":"` + version + `","name":"culvert","type":"culvert-cni","socket":"SOCKET","prevResult":{}}`
}

func TestAddDelCheckStatusGC(t *testing.T) {
	for _, v := range api.CNIVersions {
		a := newAgent(t, func(r api.CNIRequest) (int, any) {
			if r.Command == api.CNIAdd {
				return 200, api.CNIResponse{Result: json.RawMessage(`{"cniVersion":"` + v + `"}`)}
			}
			return ok(r)
		})
		for _, command := range []string{"ADD", "CHECK", "DEL", "STATUS", "GC"} {
			code, out, cerr := a.run(config(v), "CNI_COMMAND="+command)
			want := ""
			if command == "ADD" {
				want = `{"cniVersion":"` + v + `"}`
			}
			if code != 0 || out != want {
				t.Errorf("%s %s: exit %d, %q, %v", v, command, code, out, cerr)
			}
		}
		first := a.seen[0]
		if len(a.seen) != 5 || first.Command != "ADD" || first.ContainerID != "c1" || first.Netns != "/run/netns/c1" || first.IfName != "eth0" ||
			first.Args["K8S_POD_NAME"] != "web" || !strings.Contains(string(first.Config), `"prevResult"`) {
			t.Errorf("the agent saw %+v", a.seen)
		}
	}
}

func TestErrorsOfTheAgent(t *testing.T) {
	for _, c := range []struct {
		status int
		body   any
		code   uint
	}{
		{200, api.CNIResponse{Code: 101, Msg: "no", Details: "why"}, 101},
		{500, api.Error{Message: "boom"}, api.CNIInternal},
		{400, api.Error{Message: "what?"}, api.CNIInternal},
		{503, api.Error{Message: "starting"}, api.CNITryAgain},
		{200, "not an answer", api.CNITryAgain},
	} {
		a := newAgent(t, func(api.CNIRequest) (int, any) { return c.status, c.body })
		code, _, cerr := a.run(config("0.4.0"), "CNI_COMMAND=ADD")
		if code != 1 || cerr.Code != c.code || cerr.CNIVersion != "0.4.0" || cerr.Msg == "" {
			t.Errorf("%d %v: exit %d, %+v", c.status, c.body, code, cerr)
		}
	}
}

func TestVersion(t *testing.T) {
	a := newAgent(t, nil)
	for in, want := range map[string]string{`{"cniVersion":"0.3.1"}`: "0.3.1", "": "1.1.0", "nonsense": "1.1.0"} {
		code, out, _ := a.run(in, "CNI_COMMAND=VERSION", "CNI_CONTAINERID=", "CNI_IFNAME=")
		if code != 0 || out != `{"cniVersion":"`+want+`","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}` {
			t.Errorf("%q: exit %d, %s", in, code, out)
		}
	}
	if code, out, _ := a.run("", "CNI_COMMAND=", "CNI_CONTAINERID=", "CNI_NETNS=", "CNI_IFNAME="); code != 1 || out != "" {
		t.Errorf("without an environment: exit %d, %q", code, out)
	}
	if code, _, cerr := a.run(config("1.0.0")); code != 1 || cerr.Code != api.CNIInvalidEnvironment {
		t.Errorf("without a command: exit %d, %+v", code, cerr)
	}
}

func TestBadInput(t *testing.T) {
	a := newAgent(t, ok)
	for _, c := range []struct {
		config, env string
		code        uint
	}{
		{config("1.0.0"), "CNI_COMMAND=FROB", 4},
		{config("1.0.0"), "CNI_CONTAINERID=", 4},
		{config("1.0.0"), "CNI_NETNS=", 4},
		{config("1.0.0"), "CNI_IFNAME=", 4},
		{config("1.0.0"), "CNI_ARGS=K8S_POD_NAME", 4},
		{config("1.0.0"), "CNI_ARGS==x", 4},
		{config("9.0.0"), "", 1},
		{config("0.2.0"), "", 1},
		{`{"name":"x"}`, "", 1},
		{``, "", 6},
		{`[]`, "", 6},
		{`{"cniVersion":"1.0.0","socket":5}`, "", 6},
		{`{"cniVersion":"1.0.0","x":"` + strings.Repeat("x", maxConfig) + `"}`, "", 7},
	} {
		code, out, cerr := a.run(c.config, "CNI_COMMAND=ADD", c.env)
		if code != 1 || cerr.Code != c.code || cerr.CNIVersion == "" || out != "" {
			t.Errorf("%.60s %s: exit %d, %+v %s", c.config, c.env, code, cerr, out)
		}
	}
	if len(a.seen) != 0 {
		t.Errorf("the agent saw %+v", a.seen)
	}
}

func TestAgentDown(t *testing.T) {
	a := newAgent(t, nil)
	for command, want := range map[string]uint{"ADD": api.CNITryAgain, "CHECK": api.CNITryAgain, "GC": api.CNITryAgain, "STATUS": api.CNIDegraded} {
		if code, _, cerr := a.run(config("1.1.0"), "CNI_COMMAND="+command); code != 1 || cerr.Code != want || !strings.Contains(cerr.Details, a.socket) {
			t.Errorf("%s: exit %d, %+v", command, code, cerr)
		}
	}
	for range 2 {
		if code, out, cerr := a.run(config("1.1.0"), "CNI_COMMAND=DEL", "CNI_NETNS="); code != 0 || out != "" {
			t.Errorf("DEL: exit %d, %+v", code, cerr)
		}
	}
	left, _ := filepath.Glob(api.PendingDir(a.socket) + "/*.json")
	if len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
	data, err := os.ReadFile(left[0])
	var req api.CNIRequest
	if err != nil || json.Unmarshal(data, &req) != nil || req.Command != "DEL" || req.ContainerID != "c1" || req.Args["K8S_POD_NAME"] != "web" {
		t.Errorf("left: %s, %v", data, err)
	}
	// Where it cannot be left, the DEL fails and can be tried again.
	if err := os.RemoveAll(api.PendingDir(a.socket)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(api.PendingDir(a.socket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, cerr := a.run(config("1.1.0"), "CNI_COMMAND=DEL"); code != 1 || cerr.Code != api.CNITryAgain || !strings.Contains(cerr.Details, "could not be left") {
		t.Errorf("DEL that cannot be left: exit %d, %+v", code, cerr)
	}
}

// TestAgentStartsMeanwhile lets the first attempt fail and the second, after
// the file was written, succeed: the file is taken back.
func TestAgentStartsMeanwhile(t *testing.T) {
	busy := true
	a := newAgent(t, func(r api.CNIRequest) (int, any) {
		if busy {
			busy = false
			return 503, api.Error{Message: "starting"}
		}
		return ok(r)
	})
	if code, _, cerr := a.run(config("1.1.0"), "CNI_COMMAND=DEL"); code != 0 {
		t.Errorf("exit %d, %+v", code, cerr)
	}
	if left, _ := os.ReadDir(api.PendingDir(a.socket)); len(left) != 0 || len(a.seen) != 2 {
		t.Errorf("left %v, seen %v", left, a.seen)
	}
}

func TestLogFile(t *testing.T) {
	a := newAgent(t, ok)
	log := filepath.Join(t.TempDir(), "cni.log")
	conf := strings.Replace(config("1.0.0"), `"name"`, `"logFile":"`+log+`","name"`, 1)
	a.run(conf, "CNI_COMMAND=ADD")
	a.run(conf, "CNI_COMMAND=ADD", "CNI_IFNAME=")
	data, err := os.ReadFile(log)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if err != nil || len(lines) != 2 || !strings.HasSuffix(lines[0], " ok") || !strings.Contains(lines[1], "code=4") || !strings.Contains(lines[0], "default/web") {
		t.Errorf("log: %s, %v", data, err)
	}
	if code, _, _ := a.run(strings.Replace(conf, log, "/none/such/file", 1), "CNI_COMMAND=ADD"); code != 0 {
		t.Error("a log file that cannot be written failed the call")
	}
}

func FuzzPlugin(f *testing.F) {
	f.Add("ADD", config("1.0.0"), "K8S_POD_NAME=a;b=c", "c1", "eth0")
	f.Add("DEL", config("0.3.1"), ";;=;", "../..", "eth/0")
	f.Add("", "{", "=", "", "")
	f.Add("VERSION", `{"cniVersion":{}}`, "", "", "")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, command, conf, args, container, ifname string) {
		a := &agent{socket: filepath.Join(dir, "none")}
		conf = strings.ReplaceAll(conf, "SOCKET", a.socket)
		var paths netConf
		if json.Unmarshal([]byte(conf), &paths) == nil && (paths.Socket != a.socket || paths.LogFile != "") {
			return // not this machine's files
		}
		start := time.Now()
		code, out, cerr := a.run(conf, "CNI_COMMAND="+command, "CNI_ARGS="+args, "CNI_CONTAINERID="+container, "CNI_IFNAME="+ifname)
		if code != 0 && command+container+ifname != "" && (cerr.Code == 0 || cerr.Msg == "" || cerr.CNIVersion == "") {
			t.Errorf("exit %d, %q, %+v", code, out, cerr)
		}
		if time.Since(start) > 5*time.Second {
			t.Error("too slow")
		}
	})
}
