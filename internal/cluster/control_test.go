//go:build cluster

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// startControl starts the control plane on a machine of its own.
func (c *cluster) startControl() {
	c.t.Helper()
	m := c.newMachine("control", "10.99.0.10")
	c.control = m
	m.write("tokens.csv", "admintoken,admin,admin-uid,system:masters\n")
	must(c.t, "openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", m.dir+"/sa.key")
	must(c.t, "openssl", "ec", "-in", m.dir+"/sa.key", "-pubout", "-out", m.dir+"/sa.pub")
	c.kube = m.write("kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority: %s/certs/apiserver.crt}}]
users: [{name: u, user: {token: admintoken}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, apiServer, m.dir))
	m.start("etcd", "--data-dir", m.dir+"/etcd", "--unsafe-no-fsync")
	m.start("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--bind-address="+m.addr, "--advertise-address="+m.addr, "--secure-port=6443",
		"--cert-dir="+m.dir+"/certs", "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC", "--token-auth-file="+m.dir+"/tokens.csv",
		"--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+m.dir+"/sa.pub", "--service-account-signing-key-file="+m.dir+"/sa.key")
	eventually(c.t, time.Minute, "the API server", func() error {
		_, err := c.kubectl("get", "--raw", "/readyz")
		return err
	})
	m.start("kube-controller-manager", "--kubeconfig", c.kube, "--bind-address", "127.0.0.1", "--leader-elect=false",
		"--service-account-private-key-file", m.dir+"/sa.key", "--root-ca-file", m.dir+"/certs/apiserver.crt", "--cert-dir", m.dir+"/kcm",
		"--allocate-node-cidrs", "--configure-cloud-routes=false", "--cluster-cidr", "10.244.0.0/16", "--service-cluster-ip-range", "10.96.0.0/16",
		"--node-monitor-grace-period", "20s")
	m.start("kube-scheduler", "--kubeconfig", c.kube, "--bind-address", "127.0.0.1", "--leader-elect=false", "--cert-dir", m.dir+"/sched")
}

const containerdConfig = `version = 2
root = "%[1]s/containerd/root"
state = "%[1]s/containerd/state"
[grpc]
  address = "/run/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + podtool + `"
  restrict_oom_score_adj = true # root without CAP_SYS_RESOURCE
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[2]s
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: %[3]s
failCgroupV1: false
containerRuntimeEndpoint: unix:///run/containerd.sock
podLogsDir: /var/log/pods
syncFrequency: 5s
nodeStatusUpdateFrequency: 2s
failSwapOn: false
makeIPTablesUtilChains: false
oomScoreAdj: 0
resolvConf: ""
maxPods: 120
registryPullQPS: 0
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "50Mi", nodefs.available: "0%%", imagefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.inodesFree: "0%%"}
`

const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: 10.244.0.0/16
hostnameOverride: %[2]s
clientConnection: {kubeconfig: %[1]s}
nodePortAddresses: [primary]
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

// addNode starts a node: containerd with the images, kubelet, kube-proxy.
func (c *cluster) addNode(host, addr string) *machine {
	c.t.Helper()
	m := c.newMachine(host, addr)
	c.nodes = append(c.nodes, m)
	m.makeCgroups()
	m.must("cp", filepath.Join(debDir, "usr/lib/cni/loopback"), "/opt/cni/bin/") // which containerd 1 needs of whoever installs it
	m.start("containerd", "-c", m.write("containerd.toml", fmt.Sprintf(containerdConfig, m.dir)))
	eventually(c.t, time.Minute, "containerd", func() error {
		_, err := m.run("ctr", "-a", "/run/containerd.sock", "version")
		return err
	})
	for _, image := range []string{"culvert.tar", "podtool.tar"} {
		m.must("ctr", "-a", "/run/containerd.sock", "-n", "k8s.io", "image", "import", filepath.Join(binDir, image))
	}
	kubelet := m.write("kubelet.yaml", fmt.Sprintf(kubeletConfig, m.dir, addr, m.cgroup()))
	m.start("kubelet", "--config", kubelet, "--kubeconfig", c.kube, "--root-dir", "/var/lib/kubelet", "--cert-dir", m.dir+"/pki", "--node-ip", addr, "--hostname-override", host)
	m.start("kube-proxy", "--config", m.write("kube-proxy.yaml", fmt.Sprintf(proxyConfig, c.kube, host)))
	return m
}

// install installs Culvert as deploy/ says, and waits until every node is ready.
func (c *cluster) install() {
	c.t.Helper()
	text, err := os.ReadFile("../../deploy/culvert.yaml")
	if err != nil {
		c.t.Fatal(err)
	}
	c.apply(string(text))
	c.ready(2 * time.Minute)
}

// ready waits until Culvert runs on every node, and every node is ready.
func (c *cluster) ready(limit time.Duration) {
	c.t.Helper()
	eventually(c.t, limit, "the nodes", func() error {
		out, err := c.kubectl("get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`)
		if err != nil {
			return err
		}
		if strings.Count(out, " True") != len(c.nodes) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if out, err := c.kubectl("-n", "kube-system", "rollout", "status", "daemonset/culvert", "--timeout", limit.String()); err != nil {
		c.t.Fatal(out, err)
	}
}

// explain shows what there is to see when a test has failed.
func (c *cluster) explain() {
	if c.control == nil || c.control.pid == 0 {
		return
	}
	for _, args := range [][]string{
		{"get", "nodes,pods,services", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"-n", "kube-system", "logs", "-l", "app.kubernetes.io/name=culvert", "--all-containers", "--tail", "40", "--prefix"},
		{"-n", "kube-system", "describe", "pods"},
	} {
		out, err := c.kubectl(args...)
		c.t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out[max(0, len(out)-6000):])
	}
	for _, m := range c.nodes {
		m.tell("kubelet")
		m.tell("containerd")
		m.tell("kube-proxy")
	}
	c.control.tell("kube-controller-manager")
}
