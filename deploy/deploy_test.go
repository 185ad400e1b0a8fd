package deploy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"culvert/ctrl/cniconf"
	"culvert/ctrl/config"
	"culvert/internal/sysctl"
)

// TestManifestIsTheCharts: culvert.yaml is what the generator wrote, from the chart as it is.
func TestManifestIsTheCharts(t *testing.T) {
	head, body, _ := bytes.Cut(Manifest, []byte("\n"))
	sum := sha256.New()
	const chart = "helm/culvert"
	err := filepath.WalkDir(chart, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(chart, name)
		fmt.Fprintf(sum, "%s %d\n%s", relative, len(content), content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sum.Write(body)
	if want := fmt.Sprintf("%x", sum.Sum(nil)); !strings.HasSuffix(string(head), want) {
		t.Errorf("deploy/culvert.yaml or the chart was changed alone: run 'go generate ./deploy'\n%s\nwant %s", head, want)
	}
	rbac, err := os.ReadFile("rbac.yaml")
	if err != nil || !bytes.Contains(body, bytes.TrimSpace(rbac)) {
		t.Errorf("rbac.yaml is not in the manifest as it is: %v", err)
	}
}

// objects decodes those of one kind in the manifest, strictly.
func objects[T any](t *testing.T, kind string) (all []T) {
	t.Helper()
	r := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(Manifest)))
	for {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &meta); err != nil {
			t.Fatal(err)
		}
		if meta.Kind != kind {
			continue
		}
		var v T
		if err := yaml.UnmarshalStrict(doc, &v); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		all = append(all, v)
	}
}

// one is the only object of a kind.
func one[T any](t *testing.T, kind string) T {
	t.Helper()
	all := objects[T](t, kind)
	if len(all) != 1 {
		t.Fatalf("%d of %s", len(all), kind)
	}
	return all[0]
}

// mounts are the volume mounts of a container, by where they are.
func mounts(ds *appsv1.DaemonSet, c *corev1.Container) map[string]string {
	from := map[string]string{}
	for _, v := range ds.Spec.Template.Spec.Volumes {
		switch {
		case v.HostPath != nil:
			from[v.Name] = v.HostPath.Path
		case v.ConfigMap != nil:
			from[v.Name] = "configmap " + v.ConfigMap.Name
		}
	}
	at := map[string]string{}
	for _, m := range c.VolumeMounts {
		at[m.MountPath] = from[m.Name]
	}
	return at
}

// TestConfigMap: culvertd takes its configuration, which names the runtime's one, which
// asks at culvertd's socket; every path is one that the container has from the node.
func TestConfigMap(t *testing.T) {
	cm, ds := one[corev1.ConfigMap](t, "ConfigMap"), one[appsv1.DaemonSet](t, "DaemonSet")
	c, err := config.Parse("culvert.yaml", []byte(cm.Data["culvert.yaml"]), []string{"NODE_NAME=worker-1"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Source != config.SourceKube || c.Node != "worker-1" {
		t.Errorf("%+v", c)
	}
	dir := t.TempDir()
	name := filepath.Base(c.CNI.Conf)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(cm.Data[name]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cniconf.Load(filepath.Join(dir, name), c.Socket); err != nil {
		t.Error(err)
	}
	var list struct {
		CNIVersion  string
		CNIVersions []string
	}
	if err := json.Unmarshal([]byte(cm.Data[name]), &list); err != nil || list.CNIVersion != "1.0.0" || !slices.Contains(list.CNIVersions, "1.1.0") {
		t.Errorf("%+v, %v: containerd before 2 knows no 1.1.0, and later ones ask for STATUS with it", list, err)
	}
	at := mounts(&ds, &ds.Spec.Template.Spec.Containers[0])
	for path, want := range map[string]string{
		filepath.Dir(c.CNI.Conf): "configmap culvert", filepath.Dir(c.Socket): filepath.Dir(c.Socket), c.StateDir: c.StateDir,
		c.CNI.ConfDir: "/etc/cni/net.d", "/run/netns": "/run/netns", "/var/run/netns": "/run/netns", "/dev/net/tun": "/dev/net/tun",
	} {
		if at[path] != want {
			t.Errorf("%s is %q, want %q", path, at[path], want)
		}
	}
	for _, e := range ds.Spec.Template.Spec.Containers[0].Env {
		if e.Name == sysctl.Variable && at[filepath.Join(e.Value, "net")] != "/proc/sys/net" {
			t.Errorf("%s=%s: %v", e.Name, e.Value, at)
		}
	}
}

// TestDaemonSet: what makes it the network of a node, and no more than that.
func TestDaemonSet(t *testing.T) {
	ds := one[appsv1.DaemonSet](t, "DaemonSet")
	pod := ds.Spec.Template.Spec
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC || pod.PriorityClassName != "system-node-critical" || pod.DNSPolicy != corev1.DNSDefault ||
		len(pod.Tolerations) != 1 || pod.Tolerations[0] != (corev1.Toleration{Operator: corev1.TolerationOpExists}) {
		t.Errorf("%+v", pod)
	}
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		s := c.SecurityContext
		if c.Image != ManifestImage || s.Privileged != nil || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("%s: %s, %+v", c.Name, c.Image, s)
		}
		if !filepath.IsAbs(c.Command[0]) || filepath.Dir(c.Command[0]) != "/bin" {
			t.Errorf("%s runs %s, the image has its programs in /bin", c.Name, c.Command[0])
		}
	}
	cm := one[corev1.ConfigMap](t, "ConfigMap")
	c, err := config.Parse("culvert.yaml", []byte(cm.Data["culvert.yaml"]), []string{"NODE_NAME=worker-1"})
	if err != nil {
		t.Fatal(err)
	}
	d := pod.Containers[0]
	for path, p := range map[string][]*corev1.Probe{"/healthz": {d.StartupProbe, d.LivenessProbe}, "/readyz": {d.ReadinessProbe}} {
		for _, probe := range p {
			if g := probe.HTTPGet; g.Path != path || fmt.Sprintf("%s:%d", g.Host, g.Port.IntValue()) != c.Listen {
				t.Errorf("%s is probed at %+v, culvertd listens on %s", path, g, c.Listen)
			}
		}
	}
	for _, m := range d.VolumeMounts {
		if m.Name == "netns" && (m.MountPropagation == nil || *m.MountPropagation != corev1.MountPropagationHostToContainer) {
			t.Errorf("%s: namespaces of later pods are not seen", m.MountPath)
		}
	}
}

// TestUnit: systemd gives culvertd what the DaemonSet gives it.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("culvertd.service")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			keys[key] = value
		}
	}
	var want []string
	ds := one[appsv1.DaemonSet](t, "DaemonSet")
	for _, c := range ds.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add {
		want = append(want, "CAP_"+string(c))
	}
	if got := strings.Fields(keys["CapabilityBoundingSet"]); !slices.Equal(got, want) {
		t.Errorf("capabilities %v, the DaemonSet's are %v", got, want)
	}
	c, err := config.Parse("culvert.yaml", nil, []string{"NODE_NAME=worker-1"})
	if err != nil {
		t.Fatal(err)
	}
	if run, state := "/run/"+keys["RuntimeDirectory"], "/var/lib/"+keys["StateDirectory"]; run != filepath.Dir(c.Socket) || state != c.StateDir {
		t.Errorf("directories %s and %s, culvertd's are those of %s and %s", run, state, c.Socket, c.StateDir)
	}
	if keys["Restart"] != "always" || keys["ProtectKernelTunables"] != "" || !strings.Contains(keys["ReadWritePaths"], "/etc/cni/net.d") {
		t.Errorf("%v", keys)
	}
}
