package source

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const node1 = `apiVersion: v1
kind: Node
metadata:
  name: worker-1
  annotations: {culvert.dev/vtep-mac: "66:00:00:00:00:01"}
  creationTimestamp: null
spec:
  podCIDR: 10.244.1.0/24
  podCIDRs: [10.244.1.0/24]
status:
  addresses:
  - type: InternalIP
    address: 192.168.0.11
  - {type: Hostname, address: worker-1}
  capacity: {cpu: 4, memory: 8Gi}
`

// fromAPIServer is what kubectl get -o yaml shows: every kind, many fields.
const fromAPIServer = `apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: v1
  kind: Pod
  metadata:
    name: web-0
    creationTimestamp: "2026-01-02T03:04:05Z"
    managedFields:
    - apiVersion: v1
      fieldsType: FieldsV1
      fieldsV1: {"f:metadata": {"f:labels": {".": {}}}}
      manager: kubectl
      operation: Update
      time: "2026-01-02T03:04:05Z"
  spec:
    containers:
    - name: c
      image: nginx
      resources: {limits: {cpu: 500m, memory: 1.5Gi}}
      livenessProbe: {httpGet: {path: /, port: http}, periodSeconds: 10}
      volumeMounts: [{name: v, mountPath: /v}]
    volumes: [{name: v, emptyDir: {}}]
  status: {podIP: 10.244.1.2, podIPs: [{ip: 10.244.1.2}]}
- {apiVersion: v1, kind: Namespace, metadata: {name: prod}}
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: prod}
  spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], ports: [{port: 80, targetPort: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-x, namespace: prod}
  addressType: IPv4
  endpoints: [{addresses: [10.244.1.2], conditions: {ready: true}}]
  ports: [{port: 8080, protocol: TCP}]
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: deny, namespace: prod}
  spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 80, endPort: 90}]}]}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: kube-flannel-cfg, namespace: kube-flannel}
  data: {net-conf.json: '{"Network": "10.244.0.0/16"}'}
  binaryData: {x: aGk=}
- apiVersion: crd.projectcalico.org/v1
  kind: IPPool
  metadata: {name: default-ipv4-ippool}
  spec: {cidr: 10.65.0.0/16, vxlanMode: Always, ipipMode: Never, natOutgoing: true, blockSize: 26, allowedUses: [Workload, Tunnel]}
- apiVersion: crd.projectcalico.org/v1
  kind: IPAMBlock
  metadata: {name: 10-65-0-0-26}
  spec: {cidr: 10.65.0.0/26, affinity: "host:n", allocations: [0, null], unallocated: [1], strictAffinity: false, sequenceNumber: 1700000000000000000,
    attributes: [{handle_id: h, secondary: {node: n}}]}
- {apiVersion: crd.projectcalico.org/v1, kind: BlockAffinity, metadata: {name: n-10-65-0-0-26}, spec: {cidr: 10.65.0.0/26, node: n, state: confirmed, deleted: "false"}}
- {apiVersion: v1, kind: Secret, metadata: {name: ignored}}
- {apiVersion: example.com/v1, kind: Whatever, anything: {goes: [1]}}
`

func TestDecodeEveryKind(t *testing.T) {
	text := "# all\n" + node1 + "---\n" + fromAPIServer
	m, err := decodeManifest("a.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.objects) != 10 || m.ignored != 2 {
		t.Fatalf("got %d objects and %d ignored, want 10 and 2", len(m.objects), m.ignored)
	}
	s := newScanner("", time.Now)
	s.files["a.yaml"] = &file{name: "a.yaml", good: m}
	o := s.objects()
	if n := o.Nodes[0]; n.Spec.PodCIDRs[0] != "10.244.1.0/24" || n.Status.Capacity.Cpu().Value() != 4 || n.Annotations[AnnotationVTEPMAC] == "" {
		t.Errorf("node is %+v", n)
	}
	p := o.Pods[0]
	if p.Namespace != "default" || p.CreationTimestamp.Year() != 2026 || p.Spec.Containers[0].LivenessProbe.HTTPGet.Port.StrVal != "http" ||
		p.Spec.Containers[0].Resources.Limits.Cpu().MilliValue() != 500 || p.Spec.Volumes[0].EmptyDir == nil {
		t.Errorf("pod is %+v", p)
	}
	if b := o.IPAMBlocks[0].Spec; *b.Allocations[0] != 0 || b.Allocations[1] != nil || b.SequenceNumber != 1700000000000000000 {
		t.Errorf("block is %+v", b)
	}
	if string(o.ConfigMaps[0].BinaryData["x"]) != "hi" || o.Services[0].Spec.Ports[0].TargetPort.IntVal != 8080 ||
		len(o.EndpointSlices)+len(o.NetworkPolicies)+len(o.Namespaces)+len(o.IPPools)+len(o.BlockAffinities) != 5 {
		t.Errorf("got %+v", o)
	}
	if at, ok := o.Origin(Ref{"Node", "", "worker-1"}); !ok || at != (Place{"a.yaml", 2}) {
		t.Errorf("worker-1 is at %v", at)
	}
	before, _, _ := strings.Cut(text, "  kind: Service\n")
	if at, _ := o.Origin(Ref{"Service", "prod", "web"}); at.Line != strings.Count(before, "\n") {
		t.Errorf("Service prod/web is in line %d, want %d", at.Line, strings.Count(before, "\n"))
	}
}

func TestDecodeTypedListAndJSON(t *testing.T) {
	for _, text := range []string{
		`{"apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}`,
		"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: a}}\n- {apiVersion: v1, kind: Node, metadata: {name: b}}\n",
	} {
		m, err := decodeManifest("a.json", []byte(text))
		if err != nil || len(m.objects) != 2 || m.objects[1].ref != (Ref{"Node", "", "b"}) {
			t.Errorf("%s: %v, %+v", text, err, m)
		}
	}
}

// node makes a Node of lines to be put at the top level.
func node(lines ...string) string {
	return "apiVersion: v1\nkind: Node\nmetadata: {name: n}\n" + strings.Join(append(lines, ""), "\n")
}

var mistakes = []struct{ in, want string }{
	// Shape.
	{"apiVersion: v1\nkind: Node\n", "1: metadata.name: is missing; name the object"},
	{"kind: Node\n", "1: apiVersion: is missing; every object begins with apiVersion and kind"},
	{"apiVersion: v1\nmetadata: {name: x}\n", "1: kind: is missing; every object begins with apiVersion and kind"},
	{"apiVersion: 1\nkind: Node\n", "1: apiVersion: is a number, want text; put it in quotes"},
	{"- a\n", "1: is a list, want a Kubernetes object; write apiVersion, kind and metadata"},
	{"hello\n", "1: is text, want a Kubernetes object; write apiVersion, kind and metadata"},
	{"apiVersion: v1\nkind: Nod\nmetadata: {name: n}\n", "2: kind: v1 has no kind Nod; check apiVersion and kind"},
	{"apiVersion: v1\nkind: node\nmetadata: {name: n}\n", "2: kind: v1 has no kind node; did you mean Node of v1?"},
	{"apiVersion: v1\nkind: NetworkPolicy\nmetadata: {name: n}\n", "2: kind: v1 has no kind NetworkPolicy; did you mean NetworkPolicy of networking.k8s.io/v1?"},
	{"apiVersion: v2\nkind: Node\nmetadata: {name: n}\n", "1: apiVersion: v2 is no version of Node that is read; write v1"},
	{"\napiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\n", "2: apiVersion: discovery.k8s.io/v1beta1 is no version of EndpointSlice that is read; write discovery.k8s.io/v1"},
	{node("spec: {podCidrs: [10.0.0.0/24]}"), "4: spec.podCidrs: unknown field; did you mean podCIDRs?"},
	{node("spec:", "  podCIDRs: [10.0.0.0/24]", "  color: red"), "6: spec.color: unknown field; remove it"},
	{node("metdata: {}"), "4: metdata: unknown field; remove it"},
	{node("status: {addresses: [{typ: InternalIP}]}"), "4: status.addresses[0].typ: unknown field; did you mean type?"},
	{node("spec: {}", "spec: {}"), "5: spec: given twice, first in line 4; remove one"},
	{node() + "---\n" + node(), "5: metadata.name: Node n is also in m.yaml:1; keep one of them"},
	{node() + "---\n\n" + node("spec: {x: 1}"), "9: spec.x: unknown field; remove it"},
	{"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Node\n  metadata: {nam: a}\n",
		"9: items[1].metadata.nam: unknown field; did you mean name?"},
	{"apiVersion: v1\nkind: List\nitem: []\n", "3: item: unknown field; a list has apiVersion, kind, metadata and items"},
	{"apiVersion: v1\nkind: List\nitems: {}\n", "3: items: is a mapping, want a list; write - in front of each object"},
	{"apiVersion: v1\nkind: List\nitems: [1]\n", "3: items[0]: is a number, want a Kubernetes object; write apiVersion, kind and metadata"},
	{"apiVersion: v1\nkind: NodeList\nitems: [{metadata: {}}]\n", "3: items[0].metadata.name: is missing; name the object"},
	{"a: [\n", "1: is no YAML: sequence end token ']' not found; check the quoting and the indentation"},
	// Types.
	{node("spec: {podCIDRs: 10.0.0.0/24}"), "4: spec.podCIDRs: is text, want a list; write - in front of each element"},
	{node("spec: {podCIDR: 10}"), "4: spec.podCIDR: is a number, want text; put it in quotes"},
	{node("spec: {podCIDR: [10.0.0.0/24]}"), "4: spec.podCIDR: is a list, want text; write one value"},
	{node("spec: []"), "4: spec: is a list, want a mapping; write key: value lines"},
	{node("spec: {unschedulable: yes}"), "4: spec.unschedulable: is text, want a truth value; write true or false"},
	{"apiVersion: v1\nkind: Node\nmetadata:\n  name: n\n  annotations:\n    culvert.dev/vtep-mac: 1\n", `6: metadata.annotations["culvert.dev/vtep-mac"]: is a number, want text; put it in quotes`},
	{"apiVersion: v1\nkind: Node\nmetadata: {name: n, generation: 1.5}\n", "3: metadata.generation: is a number with a fraction, want a whole number; write one without quotes"},
	{"apiVersion: v1\nkind: Node\nmetadata: {name: n, creationTimestamp: yesterday}\n", `3: metadata.creationTimestamp: "yesterday" is no Time: parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`},
	{"apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 9999999999}]}\n", "4: spec.ports[0].port: 9999999999 is out of range; at most 32 bits fit"},
	{"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\nbinaryData: {x: '*'}\n", "4: binaryData.x: is text, want base64 text"},
	// Values.
	{"apiVersion: v1\nkind: Node\nmetadata: {name: Worker_1}\n", `3: metadata.name: "Worker_1" is no object name; write lower-case letters, digits, - and .`},
	{"apiVersion: v1\nkind: Node\nmetadata: {name: n, namespace: x}\n", "3: metadata.namespace: a Node is in no namespace; remove it"},
	{"apiVersion: v1\nkind: Pod\nmetadata: {name: n, namespace: a.b}\n", `3: metadata.namespace: "a.b" is no namespace; write lower-case letters, digits and -`},
	{node("spec:", "  podCIDRs:", "  - 10.0.0.0/24", "  - banana"), `7: spec.podCIDRs[1]: "banana" is no CIDR; write ADDRESS/LENGTH such as 10.244.1.0/24`},
	{node("spec: {podCIDRs: [10.0.0.1/24]}"), "4: spec.podCIDRs[0]: 10.0.0.1/24 has bits set behind its length; write 10.0.0.0/24"},
	{node("spec: {podCIDRs: [10.0.0.0/24, 10.0.0.0/16]}"), "4: spec.podCIDRs[1]: 10.0.0.0/16 overlaps podCIDRs[0], 10.0.0.0/24; keep one of them"},
	{node("spec:", "  podCIDR: 10.0.0.0/24", "  podCIDRs: [10.0.1.0/24]"), "5: spec.podCIDR: 10.0.0.0/24 is not podCIDRs[0], 10.0.1.0/24; make them the same"},
	{node("spec: {podCIDR: 224.0.0.0/24}"), "4: spec.podCIDR: 224.0.0.0/24 is no prefix for pods; write a unicast prefix"},
	{node("status:", "  addresses:", "  - type: InternalIP", "    address: 1.2.3"), `7: status.addresses[0].address: "1.2.3" is no IP address; write one such as 192.0.2.10`},
	{node("status: {addresses: [{type: InternalIP, address: 127.0.0.1}]}"), "4: status.addresses[0].address: 127.0.0.1 reaches no node; write a unicast address"},
	{"apiVersion: v1\nkind: Node\nmetadata:\n  name: n\n  annotations:\n    culvert.dev/vtep-mac: 66:b3\n", `6: metadata.annotations["culvert.dev/vtep-mac"]: "66:b3" is no MAC address; write six bytes such as 66:b3:68:28:39:8e`},
	{"apiVersion: v1\nkind: Node\nmetadata: {name: n, annotations: {culvert.dev/vtep-mac: '01:00:00:00:00:01'}}\n", `3: metadata.annotations["culvert.dev/vtep-mac"]: 01:00:00:00:00:01 is a group address; write a unicast address`},
	{"apiVersion: v1\nkind: Node\nmetadata: {name: n, annotations: {culvert.dev/public-ip: x}}\n", `3: metadata.annotations["culvert.dev/public-ip"]: "x" is no IP address; write one such as 192.0.2.10`},
	{"apiVersion: v1\nkind: Pod\nmetadata: {name: n}\nstatus: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.2}]}\n", "4: status.podIP: 10.0.0.1 is not podIPs[0], 10.0.0.2; make them the same"},
	{"apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: x}\n", `4: spec.clusterIP: "x" is no IP address; write one such as 192.0.2.10`},
	{"apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 0}]}\n", "4: spec.ports[0].port: 0 is out of range; write a number from 1 to 65535"},
	{"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\naddressType: IPv4\nendpoints: [{addresses: ['::1:2']}]\n",
		"5: endpoints[0].addresses[0]: ::1:2 is no IPv4 address, which addressType says; use one slice for each family"},
	{"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: s}\nspec:\n  egress:\n  - to:\n    - ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}\n",
		`7: spec.egress[0].to[0].ipBlock.except[0]: "11.0.0.0/16" is no CIDR inside 10.0.0.0/8; write one that is`},
	{"apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.0.0.0/8, vxlanMode: Always, ipipMode: Always}\n", "4: spec.ipipMode: both vxlanMode and ipipMode are on; set one of them to Never"},
	{"apiVersion: crd.projectcalico.org/v1\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {vxlanVNI: 16777216}\n", "4: spec.vxlanVNI: 16777216 is out of range; write a number from 1 to 16777215"},
	{"apiVersion: crd.projectcalico.org/v1\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {vxlanPort: high}\n", `4: spec: {"vxlanPort":"high"} is no FelixConfigurationSpec: json: cannot unmarshal string into Go struct field plain.vxlanPort of type int`},
	{"apiVersion: crd.projectcalico.org/v1\nkind: IPAMBlock\nmetadata: {name: p}\nspec: {cidr: 10.0.0.0/26, allocations: [null, 3], attributes: []}\n", "4: spec.allocations[1]: 3 is no index of attributes, which has 0"},
}

func TestMistakes(t *testing.T) {
	for _, c := range mistakes {
		_, err := decodeManifest("m.yaml", []byte(c.in))
		if err == nil || err.Error() != "m.yaml:"+c.want {
			t.Errorf("%s\n got %v\nwant m.yaml:%s", c.in, err, c.want)
		}
	}
}

// FuzzManifest: any text gives objects or one line that begins with the file.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(node1))
	f.Add([]byte(fromAPIServer))
	for _, c := range mistakes {
		f.Add([]byte(c.in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest("m.yaml", b)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") || !strings.HasPrefix(err.Error(), "m.yaml:") {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		for _, o := range m.objects {
			if o.ref.Name == "" || o.place.Line < 1 {
				t.Fatalf("%q: accepted %+v", b, o)
			}
		}
	})
}

// What a file may not say, an API server may not either.
func TestCheck(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.0.0.0/24", "10.0.0.0/25"}}}
	if key, what := Check(n); key != "spec.podCIDRs[1]" || !strings.Contains(what, "overlaps") {
		t.Errorf("%q: %q", key, what)
	}
	n.Spec.PodCIDRs = n.Spec.PodCIDRs[:1]
	if key, what := Check(n); key != "" || what != "" {
		t.Errorf("%q: %q", key, what)
	}
	if key, what := Check(&IPPool{Spec: IPPoolSpec{CIDR: "10.0.0.0/24"}}); key != "metadata.name" || what == "" {
		t.Errorf("%q: %q", key, what)
	}
	if key, what := Check(&metav1.PartialObjectMetadata{}); key != "" || what != "" {
		t.Errorf("of no kind of ours: %q: %q", key, what)
	}
}

func TestCounts(t *testing.T) {
	o := &Objects{IPPools: make([]*IPPool, 2), ConfigMaps: make([]*corev1.ConfigMap, 1)}
	if c := o.Counts(); len(c) != 2 || c[0] != (Count{"ConfigMap", 1}) || c[1] != (Count{"IPPool", 2}) {
		t.Errorf("%+v", c)
	}
}

// FelixConfiguration has many settings that are none of Culvert's business.
func TestFelixConfiguration(t *testing.T) {
	m, err := decodeManifest("f.yaml", []byte(`apiVersion: crd.projectcalico.org/v1
kind: FelixConfiguration
metadata: {name: default}
spec: {bpfLogLevel: "", vxlanVNI: 4097, someday: {a: [1, 2]}, vxlanMTU: 0}
`))
	if err != nil {
		t.Fatal(err)
	}
	var o Objects
	m.objects[0].kind.add(&o, m.objects[0].value)
	s := o.FelixConfigurations[0].Spec
	if *s.VXLANVNI != 4097 || *s.VXLANMTU != 0 || s.VXLANPort != nil {
		t.Errorf("%+v", s)
	}
}
