package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"culvert/ctrl/flavour"
	"culvert/ctrl/source"
)

const rbacFile = "../../deploy/rbac.yaml"

// request is what RBAC decides about. Name is that of the object, or of a selector.
type request struct {
	Verb, Group, Resource, Name string // resource with its subresource
}

// requestOf reads one as the API server does (apiserver/pkg/endpoints/request/requestinfo.go).
func requestOf(method string, u *url.URL) (r request) {
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if parts[0] == "apis" {
		r.Group, parts = parts[1], parts[3:]
	} else {
		parts = parts[2:]
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	r.Resource = parts[0]
	if len(parts) > 1 {
		r.Name = parts[1]
	}
	if len(parts) > 2 {
		r.Resource += "/" + parts[2]
	}
	r.Verb = map[string]string{"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}[method]
	if r.Name == "" && method == "GET" {
		r.Verb = "list"
		if w := u.Query().Get("watch"); w == "true" || w == "1" {
			r.Verb = "watch"
		}
		r.Name, _ = strings.CutPrefix(u.Query().Get("fieldSelector"), "metadata.name=")
	}
	return r
}

// grants reads the file's rules.
func grants(t *testing.T) (rules []rbacv1.PolicyRule) {
	t.Helper()
	f, err := os.Open(rbacFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := yaml.NewYAMLOrJSONDecoder(f, 4096)
	for {
		var role rbacv1.ClusterRole
		err := d.Decode(&role)
		if errors.Is(err, io.EOF) {
			return rules
		}
		if err != nil {
			t.Fatalf("%s: %v", rbacFile, err)
		}
		if role.Kind == "ClusterRole" {
			rules = append(rules, role.Rules...)
		}
	}
}

func granted(rules []rbacv1.PolicyRule, r request) bool {
	return slices.ContainsFunc(rules, func(p rbacv1.PolicyRule) bool {
		return slices.Contains(p.APIGroups, r.Group) && slices.Contains(p.Resources, r.Resource) && slices.Contains(p.Verbs, r.Verb) &&
			(len(p.ResourceNames) == 0 || slices.Contains(p.ResourceNames, r.Name))
	})
}

// uses is who asks for what: verbs by group and resource.
var uses = []struct {
	by              string
	groups          []string
	resource, verbs string
	name            string // if only that one is asked for
}{
	{"Publisher", []string{""}, "nodes", "get", ""},
	{"Publisher", []string{""}, "nodes/status", "patch", ""},
	{"Publisher", []string{""}, "events", "get create patch", ""},
	{"Source", []string{""}, "nodes", "list watch", ""},
	{"Source", []string{""}, "services", "list watch", ""},
	{"Source", []string{""}, "configmaps", "list watch", "kube-flannel-cfg"},
	{"Source", []string{"apiextensions.k8s.io"}, "customresourcedefinitions", "list watch", ""},
	{"Source", calicoGroups, "ippools", "list watch", ""},
	{"Source", calicoGroups, "felixconfigurations", "list watch", ""},
	{"Source", calicoGroups, "ipamblocks", "list watch", ""},
	{"Source", calicoGroups, "blockaffinities", "list watch", ""},
	{"calicoipam", []string{""}, "namespaces", "get", ""},
	{"calicoipam", []string{""}, "pods", "get", ""},
	{"calicoipam", calicoGroups, "ippools", "list", ""},
	{"calicoipam", calicoGroups, "ipamblocks", "get list create update delete", ""},
	{"calicoipam", calicoGroups, "blockaffinities", "get list create update delete", ""},
	{"calicoipam", calicoGroups, "ipamhandles", "get create update delete", ""},
	{"calicoipam", calicoGroups[:1], "ipamconfigs", "get", ""},
	{"calicoipam", calicoGroups[1:], "ipamconfigurations", "get", ""},
	{"calicoipam", calicoGroups, "ipreservations", "list", ""},
}

var calicoGroups = []string{"crd.projectcalico.org", "projectcalico.org"}

// TestPermissions: what is used is granted, and nothing else is.
func TestPermissions(t *testing.T) {
	rules := grants(t)
	used := map[request]string{}
	for _, u := range uses {
		for _, group := range u.groups {
			for _, verb := range strings.Fields(u.verbs) {
				r := request{Verb: verb, Group: group, Resource: u.resource, Name: u.name}
				if !granted(rules, r) {
					t.Errorf("%s needs %+v, which is not granted", u.by, r)
				}
				used[r] = u.by
			}
		}
	}
	for _, p := range rules {
		if len(p.NonResourceURLs) > 0 {
			t.Errorf("%v are granted", p.NonResourceURLs)
		}
		names := p.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range p.APIGroups {
			for _, resource := range p.Resources {
				for _, verb := range p.Verbs {
					for _, name := range names {
						if r := (request{verb, group, resource, name}); used[r] == "" {
							t.Errorf("%+v is granted and nobody uses it", r)
						}
					}
				}
			}
		}
	}
}

// TestEveryRuleIsExplained by a comment above it.
func TestEveryRuleIsExplained(t *testing.T) {
	text, err := os.ReadFile(rbacFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	n := 0
	for i, line := range lines {
		// The twin of ipamconfigs has its comment above the two.
		if strings.HasPrefix(line, "  - apiGroups:") && !strings.Contains(lines[i+1], "ipamconfigurations") {
			n++
			if !strings.HasPrefix(lines[i-1], "  # ") {
				t.Errorf("%s:%d: no comment says what for", rbacFile, i+1)
			}
		}
	}
	if n < 10 {
		t.Errorf("%d rules", n)
	}
}

// noted are the requests that a server got.
type noted struct {
	mu  sync.Mutex
	all map[request]bool
}

func (n *noted) add(r request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = map[request]bool{}
	}
	if r.Verb != "list" && r.Verb != "watch" { // whose names are those of selectors
		r.Name = ""
	}
	n.all[r] = true
}

func (n *noted) requests() []request {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Keys(n.all))
}

// verbs are the verbs and resources that were asked for, in order.
func (n *noted) verbs() (out []string) {
	for _, r := range n.requests() {
		out = append(out, r.Verb+" "+r.Resource)
	}
	slices.Sort(out)
	return out
}

// TestThePublishersRequests: all that go over the wire are granted, and all that are
// said to be used do.
func TestThePublishersRequests(t *testing.T) {
	rules := grants(t)
	stale := conflictOn("w2", "is old")
	staleName := eventOf(&stale, referenceTo(nil, stale.Object), "").Name
	var asked noted
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := requestOf(r.Method, r.URL)
		asked.add(req)
		if !granted(rules, req) {
			t.Errorf("%+v is not granted", req)
		}
		var answer any = newNode("w1", nil)
		code := http.StatusOK
		switch {
		case strings.HasPrefix(req.Resource, "nodes"):
		case req.Verb == "get" && req.Name == staleName:
			answer = &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: staleName, ResourceVersion: "1"}}
		case req.Verb == "get":
			code, answer = http.StatusNotFound, &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404}
		default:
			answer = &corev1.Event{}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer server.Close()
	client, err := NewClient(kubeconfigOf(t, server.URL), "culvertd/test")
	if err != nil {
		t.Fatal(err)
	}
	p := NewPublisher(client, "w1", quiet())
	p.Publish(flannelWish, isUp)
	p.Conflicts([]flavour.Conflict{stale, {Object: source.Ref{Kind: "Node", Name: "w3"}, Key: "k", What: "is new"}})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() { _ = p.Run(ctx); close(done) }()
	want := []string{"create events", "get events", "get nodes", "patch events", "patch nodes/status"}
	for !slices.Equal(asked.verbs(), want) && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	<-done
	if got := asked.verbs(); !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q; %v", got, want, p.Problems())
	}
	var said []string
	for _, u := range uses {
		for _, verb := range strings.Fields(u.verbs) {
			if u.by == "Publisher" {
				said = append(said, verb+" "+u.resource)
			}
		}
	}
	if slices.Sort(said); !slices.Equal(said, want) {
		t.Errorf("the table says %q", said)
	}
}

// kubeconfigOf is a file that names a server without TLS.
func kubeconfigOf(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":%q}}],`+
		`"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{}}]}`, server)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
