package calicoipam

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "k8s.io/apimachinery/pkg/util/json"
)

// FuzzBlock reads what somebody else has written, and writes to it: nothing of it may
// panic, and an address that is given is never given again.
func FuzzBlock(f *testing.F) {
	for _, seed := range []string{
		`{"cidr":"10.0.0.0/30","allocations":[0,null,1,null],"unallocated":[3,1],"attributes":[{"handle_id":"a\r\nb"},{"secondary":{"node":"n"},"more":1}],"sequenceNumber":1700000000000000000,"sequenceNumberForAllocation":{"0":5},"strictAffinity":false,"new":{"x":1}}`,
		`{"cidr":"fd00::fff0/124","affinity":"host:n","allocations":[null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,0],"unallocated":[0,0,15,3],"attributes":[{}]}`,
		`{"cidr":"10.0.0.0/32","allocations":[0],"unallocated":[0],"attributes":[{"handle_id":"h"},{"handle_id":"h"}],"deleted":true}`,
		`{"cidr":"10.0.0.0/31","allocations":[5,null],"unallocated":[-1],"attributes":[]}`, `{}`, `{"cidr":"10.0.0.0/8"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var spec map[string]any
		if kjson.Unmarshal(text, &spec) != nil || spec == nil {
			return
		}
		b, err := readBlock(&unstructured.Unstructured{Object: map[string]any{"spec": spec}})
		if err != nil {
			return
		}
		_ = b.age(time.Now())
		given := map[netip.Addr]bool{}
		for _, h := range b.holders() {
			given[h.addr] = true
		}
		c := b.clone()
		for a, ok := c.next(func(netip.Addr) bool { return false }); ok; a, ok = c.next(func(netip.Addr) bool { return false }) {
			if given[a] || !b.cidr.Contains(a) {
				t.Fatalf("%s is given twice, or is not of %s", a, b.cidr)
			}
			given[a] = true
			c.assign(a, "new", map[string]string{"node": "n"})
		}
		c = rewritten(t, c)
		for _, h := range b.holders() {
			if !slices.ContainsFunc(c.holders(), func(o holder) bool { return o.addr == h.addr && o.handle == h.handle }) {
				t.Errorf("%s of %q is lost", h.addr, h.handle)
			}
		}
		if n := c.release(func(h holder) bool { return h.handle == "new" }); n > 0 && c.count("new") != 0 {
			t.Errorf("%d are released, %d are left", n, c.count("new"))
		}
		c = rewritten(t, c)
		if c.release(func(holder) bool { return true }); !c.empty() || len(c.spec.Allocations) != len(b.spec.Allocations) {
			t.Error("not empty")
		}
		rewritten(t, c)
	})
}

// rewritten is a block as it is read after it was written.
func rewritten(t *testing.T, b *block) *block {
	t.Helper()
	obj, err := b.object()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(obj.Object)
	if err != nil {
		t.Fatal(err)
	}
	again := &unstructured.Unstructured{}
	if err := kjson.Unmarshal(text, &again.Object); err != nil {
		t.Fatal(err)
	}
	c, err := readBlock(again)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
