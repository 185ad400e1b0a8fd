package flavour

import (
	"strings"
	"testing"
)

// A node that claims addresses itself has those tunnel addresses that a block says are
// its own: nobody else is given them.
func TestCalicoTunnelIsWhatTheBlockSays(t *testing.T) {
	key := ca + "IPv4VXLANTunnelAddr"
	for _, c := range []struct {
		name, annotated, block, want string
	}{
		{"nothing is given yet", "", "10.244.1.0/26 me", ""},
		{"the block says", "", "10.244.1.0/26 me 5=me#vxlanTunnelAddress", "10.244.1.5"},
		{"the block says otherwise", "10.244.1.9", "10.244.1.0/26 me 5=me#vxlanTunnelAddress 9=a/pod", "10.244.1.5"},
		{"the node says", "10.244.1.9", "10.244.1.0/26 me", "10.244.1.9"},
	} {
		n := node("me", "10.0.0.1", "")
		if c.annotated != "" {
			n = annotated(n, key+"="+c.annotated)
		}
		d := Calico(objects(n, pool("p", "10.244.0.0/16 vxlan=Always"), ipamBlock(c.block)), Options{Node: "me", Claims: true})
		if got := d.Annotations[key]; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if told := len(d.Conflicts) > 0; told != (c.want == "") {
			t.Errorf("%s: %v", c.name, d.Conflicts)
		}
	}
	d := Calico(objects(node("me", "10.0.0.1", ""), pool("p", "10.244.0.0/16")), Options{Node: "me", Claims: true})
	if len(d.Conflicts) != 0 {
		t.Errorf("a node that is about to get a block is told to get one: %v", d.Conflicts)
	}
}

func TestSelects(t *testing.T) {
	if ok, err := Selects("zone == 'a'", map[string]string{"zone": "a"}); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if _, err := Selects("zone ==", nil); err == nil || !strings.Contains(err.Error(), "zone") {
		t.Errorf("nonsense: %v", err)
	}
}
