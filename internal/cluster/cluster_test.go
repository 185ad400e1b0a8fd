//go:build cluster

package cluster

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pod is a pod as kubectl shows it.
type pod struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct{ NodeName string }
	Status   struct {
		Phase, PodIP      string
		Conditions        []struct{ Type, Status string }
		ContainerStatuses []struct{ RestartCount int }
	}
}

func (p *pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

func (p *pod) restarts() (n int) {
	for _, s := range p.Status.ContainerStatuses {
		n += s.RestartCount
	}
	return n
}

// pods are those of a namespace with a label.
func (c *cluster) pods(namespace, label string) []pod {
	c.t.Helper()
	var list struct{ Items []pod }
	if err := json.Unmarshal([]byte(c.mustKubectl("-n", namespace, "get", "pods", "-l", label, "-o", "json")), &list); err != nil {
		c.t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b pod) int { return strings.Compare(a.Spec.NodeName+a.Metadata.Name, b.Spec.NodeName+b.Metadata.Name) })
	return list.Items
}

// running waits for so many ready pods of the namespace default with a label app.
func (c *cluster) running(app string, n int, limit time.Duration) (all []pod) {
	c.t.Helper()
	eventually(c.t, limit, fmt.Sprintf("%d pods of %s", n, app), func() error {
		all = c.pods("default", "app="+app)
		up := 0
		for i := range all {
			if all[i].ready() {
				up++
			}
		}
		if up != n || len(all) != n {
			return fmt.Errorf("%d of %d are ready", up, len(all))
		}
		return nil
	})
	return all
}

// deployment is a Deployment with a pod on each node at first, and probes.
func deployment(app string, replicas int, args string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: %[1]s}}}
      containers:
      - name: main
        image: `+podtool+`
        imagePullPolicy: Never
        args: [%[3]s]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        livenessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 2}
`, app, replicas, args)
}

const service = `
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  type: NodePort
  selector: {app: %[1]s}
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: %[2]d}, {name: echo, port: 81, targetPort: 8081}]
`

// get has a pod fetch a page.
func (c *cluster) get(from pod, url string) (string, error) {
	return c.kubectl("exec", from.Metadata.Name, "--", "/bin/podtool", "get", url)
}

// wantPage fetches a page by some command until it says what is wanted.
func wantPage(t *testing.T, what, want string, get func() (string, error)) {
	t.Helper()
	eventually(t, 15*time.Second, what, func() error {
		out, err := get()
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("%q, want %q", out, want)
		}
		return err
	})
}

// clusterIP is a Service's.
func (c *cluster) clusterIP(service string) string {
	c.t.Helper()
	return c.mustKubectl("get", "service", service, "-o", "jsonpath={.spec.clusterIP}")
}

// culvert runs the operator's command in culvertd's pod of a node.
func (c *cluster) culvert(node string, args ...string) (string, error) {
	for _, p := range c.pods("kube-system", "app.kubernetes.io/name=culvert") {
		if p.Spec.NodeName == node {
			return c.kubectl(append([]string{"-n", "kube-system", "exec", p.Metadata.Name, "-c", "culvertd", "--", "/bin/culvert"}, args...)...)
		}
	}
	return "", fmt.Errorf("no culvertd on %s", node)
}

// TestCluster is one cluster on which everything is tried in turn.
func TestCluster(t *testing.T) {
	c := newCluster(t)
	defer func() { // while the machines run
		if t.Failed() {
			c.explain()
		}
	}()
	begin := time.Now()
	lap := func(what string) { t.Logf("%s after %.1f s", what, time.Since(begin).Seconds()) }
	c.startControl()
	c.addNode("worker-1", "10.99.0.1")
	c.addNode("worker-2", "10.99.0.2")
	lap("the programs run")
	c.install()
	lap("installed and ready")
	c.apply(deployment("web", 4, `serve, "8080"`) + "---" + fmt.Sprintf(service, "web", 30080))
	web := c.running("web", 4, time.Minute)
	lap("the Deployment runs") // its probes pass
	if web[0].Spec.NodeName == web[3].Spec.NodeName {
		t.Fatalf("all pods are on %s", web[0].Spec.NodeName)
	}
	for _, step := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"pods", testPods}, {"services", testServices}, {"nodes", testNodes}, {"logs", testLogs},
		{"restart", testRestart}, {"rolling", testRolling}, {"many", testMany}, {"drain", testDrain},
	} {
		c.step(step.name, step.run)
		lap(step.name)
	}
}

// step runs a part of the test on the cluster.
func (c *cluster) step(name string, run func(*testing.T, *cluster)) {
	whole := c.t
	to := func(t *testing.T) {
		c.t = t
		for _, m := range append(c.nodes, c.control) {
			m.t = t
		}
	}
	defer to(whole)
	whole.Run(name, func(t *testing.T) {
		to(t)
		run(t, c)
	})
}

// Pods reach each other, on one node and on two, with their own addresses.
func testPods(t *testing.T, c *cluster) {
	web := c.pods("default", "app=web")
	for _, to := range []pod{web[1], web[2], web[3]} {
		wantPage(t, web[0].Metadata.Name+" to "+to.Metadata.Name, "you are "+web[0].Status.PodIP+" and I am "+to.Metadata.Name, func() (string, error) {
			return c.get(web[0], "http://"+to.Status.PodIP+":8080/")
		})
	}
	wantPage(t, "back", "you are "+web[3].Status.PodIP, func() (string, error) {
		return c.get(web[3], "http://"+web[0].Status.PodIP+":8080/")
	})
}

// A Service by its address, from pods of both nodes, from nodes and by their ports; the
// API server's own; and every endpoint has its share.
func testServices(t *testing.T, c *cluster) {
	web := c.pods("default", "app=web")
	url := "http://" + c.clusterIP("web") + "/"
	for _, from := range []pod{web[0], web[3]} {
		seen := map[string]bool{}
		for range 40 {
			out, err := c.get(from, url)
			if err != nil {
				t.Fatal(err)
			}
			seen[strings.TrimSpace(out[strings.LastIndex(out, " ")+1:])] = true
			if len(seen) == len(web) {
				break
			}
		}
		if len(seen) != len(web) {
			t.Errorf("from %s the Service is %v", from.Spec.NodeName, seen)
		}
	}
	for _, m := range c.nodes {
		if out, err := m.run("podtool", "get", url); err != nil {
			t.Errorf("%s to the Service: %s, %v", m.host, out, err)
		}
		for range 4 { // endpoints on this node and on the other
			if out, err := c.control.run("podtool", "get", "http://"+m.addr+":30080/"); err != nil {
				t.Errorf("by NodePort of %s: %s, %v", m.host, out, err)
			}
		}
	}
	if out, err := c.get(web[0], "http://"+c.nodes[1].addr+":30080/"); err != nil {
		t.Errorf("a pod by another node's NodePort: %s, %v", out, err)
	}
	if out, err := c.get(web[0], "https://10.96.0.1/"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a pod to the API server's Service: %s, %v", out, err)
	}
}

// Nodes and pods reach each other; so does a pod of the node's own network.
func testNodes(t *testing.T, c *cluster) {
	web := c.pods("default", "app=web")
	for _, m := range c.nodes {
		for _, to := range []pod{web[0], web[3]} {
			wantPage(t, m.host+" to "+to.Metadata.Name, "and I am "+to.Metadata.Name, func() (string, error) {
				return m.run("podtool", "get", "http://"+to.Status.PodIP+":8080/")
			})
		}
	}
	c.apply(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: host}
spec:
  selector: {matchLabels: {app: host}}
  template:
    metadata: {labels: {app: host}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: ` + podtool + `, imagePullPolicy: Never, args: [serve, "9090"]}]
`)
	host := c.running("host", 2, 30*time.Second)
	for _, to := range host {
		wantPage(t, "pod to "+to.Spec.NodeName, "you are ", func() (string, error) { return c.get(web[0], "http://"+to.Status.PodIP+":9090/") })
		wantPage(t, to.Spec.NodeName+" to pod", "and I am "+web[3].Metadata.Name, func() (string, error) {
			return c.get(to, "http://"+web[3].Status.PodIP+":8080/")
		})
	}
	c.mustKubectl("delete", "daemonset", "host", "--wait=false")
}

// The API server reaches kubelets for logs and exec, and they the pods.
func testLogs(t *testing.T, c *cluster) {
	c.apply(strings.Replace(deployment("hello", 1, `hold, "127.0.0.1:1"`), "readinessProbe", "startupProbe", 1))
	eventually(t, 30*time.Second, "the log of a pod that fails", func() error {
		out, err := c.kubectl("logs", "deployment/hello")
		if err == nil && !strings.Contains(out, "connection refused") {
			err = fmt.Errorf("%q", out)
		}
		return err
	})
	c.mustKubectl("delete", "deployment", "hello", "--wait=false")
}

// A pod that is killed is made again, elsewhere or there, and the Service follows.
func testRestart(t *testing.T, c *cluster) {
	before := c.pods("default", "app=web")
	c.mustKubectl("delete", "pod", before[0].Metadata.Name)
	after := c.running("web", 4, time.Minute)
	if slices.ContainsFunc(after, func(p pod) bool { return p.Metadata.Name == before[0].Metadata.Name }) {
		t.Error("the pod is still there")
	}
	url := "http://" + c.clusterIP("web") + "/"
	for range 8 {
		if out, err := c.get(after[3], url); err != nil {
			t.Errorf("the Service: %s, %v", out, err)
		}
	}
}

// holders are connections held by pods of both nodes to a pod of each, and to the Service.
func (c *cluster) holders() []pod {
	c.t.Helper()
	web := c.pods("default", "app=web")
	text := ""
	for i, to := range []string{web[0].Status.PodIP + ":8081", web[3].Status.PodIP + ":8081", c.clusterIP("web") + ":81"} {
		for _, node := range c.nodes {
			text += fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: hold-%d-%s, labels: {app: hold}}
spec:
  nodeName: %[2]s
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: `+podtool+`, imagePullPolicy: Never, args: [hold, %[3]q]}]
`, i, node.host, to)
		}
	}
	c.apply(text)
	return c.running("hold", 6, time.Minute)
}

// progress is how many echoes each of the pods has had, and the longest wait in ms.
func (c *cluster) progress(holders []pod) (echoes map[string]int, longest int) {
	c.t.Helper()
	echoes = map[string]int{}
	for _, p := range holders {
		out := c.mustKubectl("logs", p.Metadata.Name, "--tail", "1")
		f := strings.Fields(out)
		if len(f) != 5 {
			c.t.Fatalf("%s says %q", p.Metadata.Name, out)
		}
		echoes[p.Metadata.Name], _ = strconv.Atoi(f[1])
		ms, _ := strconv.Atoi(f[3])
		longest = max(longest, ms)
	}
	return echoes, longest
}

// culvertd is restarted on one node after the other, as an upgrade does it, and no
// connection is lost.
func testRolling(t *testing.T, c *cluster) {
	holders := c.holders()
	time.Sleep(2 * time.Second)
	before, _ := c.progress(holders)
	agents := c.pods("kube-system", "app.kubernetes.io/name=culvert")
	c.mustKubectl("-n", "kube-system", "rollout", "restart", "daemonset/culvert")
	c.ready(2 * time.Minute)
	for _, p := range c.pods("kube-system", "app.kubernetes.io/name=culvert") {
		if slices.ContainsFunc(agents, func(a pod) bool { return a.Metadata.Name == p.Metadata.Name }) {
			t.Errorf("%s was not restarted", p.Metadata.Name)
		}
	}
	time.Sleep(3 * time.Second)
	after, longest := c.progress(holders)
	for _, p := range c.pods("default", "app=hold") {
		if p.restarts() != 0 || p.Status.Phase != "Running" {
			t.Errorf("%s: %s, restarted %d times", p.Metadata.Name, p.Status.Phase, p.restarts())
		}
		if name := p.Metadata.Name; after[name] <= before[name]+50 {
			t.Errorf("%s stands at echo %d, was at %d", name, after[name], before[name])
		}
	}
	t.Logf("longest wait for an echo: %d ms", longest)
	c.mustKubectl("delete", "pods", "-l", "app=hold", "--force", "--grace-period=0")
	c.running("hold", 0, time.Minute)
}

// inventory is what a node has of things that pods need.
type inventory struct{ Links, Netns, Pods, Ports, Addresses int }

func (c *cluster) inventory(m *machine) (have inventory) {
	c.t.Helper()
	count := func(text string) int { return len(strings.Fields(text)) }
	have.Links = strings.Count(m.must("ip", "-o", "link"), "\n")
	have.Netns = count(m.must("ls", "/run/netns"))
	for _, noun := range []struct {
		name string
		n    *int
	}{{"pod", &have.Pods}, {"port", &have.Ports}} {
		out, err := c.culvert(m.host, noun.name, "-o", "json")
		var list []any
		if err == nil {
			err = json.Unmarshal([]byte(out), &list)
		}
		if err != nil {
			c.t.Fatal(out, err)
		}
		*noun.n = len(list)
	}
	have.Addresses = have.Pods
	return have
}

// A hundred pods come and go, and leave nothing behind: no device, namespace, port,
// address, frame.
func testMany(t *testing.T, c *cluster) {
	settle := func(what string, want map[string]inventory) (have map[string]inventory) {
		t.Helper()
		eventually(t, time.Minute, what, func() error {
			have = map[string]inventory{}
			for _, m := range c.nodes {
				have[m.host] = c.inventory(m)
			}
			if want != nil && fmt.Sprint(have) != fmt.Sprint(want) {
				return fmt.Errorf("%+v, before it was %+v", have, want)
			}
			return nil
		})
		return have
	}
	time.Sleep(2 * time.Second)
	before := settle("", nil)
	c.apply(strings.Replace(deployment("many", 100, `serve, "8080"`), "periodSeconds: 1}", "periodSeconds: 5}", 1))
	c.running("many", 100, 3*time.Minute)
	during := settle("", nil)
	if got := during["worker-1"].Pods + during["worker-2"].Pods - before["worker-1"].Pods - before["worker-2"].Pods; got != 100 {
		t.Errorf("culvertd has %d pods more", got)
	}
	c.mustKubectl("delete", "deployment", "many")
	c.running("many", 0, 2*time.Minute)
	settle("nothing is left", before)
	for _, m := range c.nodes {
		if out, err := c.culvert(m.host, "ipam", "check"); err != nil {
			t.Errorf("%s: %s, %v", m.host, out, err)
		}
	}
}

// A node is drained: its pods end and begin on the other one, and come back.
func testDrain(t *testing.T, c *cluster) {
	c.mustKubectl("drain", "worker-2", "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout", "60s")
	for _, p := range c.running("web", 4, time.Minute) {
		if p.Spec.NodeName != "worker-1" {
			t.Errorf("%s is on %s", p.Metadata.Name, p.Spec.NodeName)
		}
	}
	if out, err := c.control.run("podtool", "get", "http://"+c.nodes[1].addr+":30080/"); err != nil {
		t.Errorf("by the drained node's NodePort: %s, %v", out, err)
	}
	c.mustKubectl("uncordon", "worker-2")
}
