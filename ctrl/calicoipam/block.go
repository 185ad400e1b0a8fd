package calicoipam

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "k8s.io/apimachinery/pkg/util/json"

	"culvert/ctrl/source"
)

// block is an IPAMBlock. What its object says beyond the fields that are known
// here stays as it is.
type block struct {
	obj  *unstructured.Unstructured
	cidr netip.Prefix
	spec source.IPAMBlockSpec
	// origin is where in the object each of spec.Attributes comes from; -1: it is new.
	origin []int
}

// readBlock takes an object apart. One that contradicts itself is an error: nobody
// may write to it.
func readBlock(obj *unstructured.Unstructured) (*block, error) {
	b := &block{obj: obj}
	fail := func(format string, args ...any) (*block, error) {
		return nil, fmt.Errorf("IPAMBlock %s: %s: %w", obj.GetName(), fmt.Sprintf(format, args...), ErrRefused)
	}
	if err := readSpec(obj, &b.spec); err != nil {
		return fail("%v", err)
	}
	var what string
	if b.cidr, what = source.ParseCIDR(b.spec.CIDR); what != "" {
		return fail("spec.cidr: %s", what)
	}
	bits := b.cidr.Addr().BitLen() - b.cidr.Bits()
	if bits > 16 || len(b.spec.Allocations) != 1<<bits {
		return fail("spec.allocations has %d entries, which is not the size of %s", len(b.spec.Allocations), b.cidr)
	}
	for i, at := range b.spec.Allocations {
		if at != nil && (*at < 0 || *at >= len(b.spec.Attributes)) {
			return fail("spec.allocations[%d] is no index of attributes, which has %d", i, len(b.spec.Attributes))
		}
	}
	for i, ord := range b.spec.Unallocated {
		if ord < 0 || ord >= len(b.spec.Allocations) {
			return fail("spec.unallocated[%d] is no ordinal", i)
		}
	}
	for i := range b.spec.Attributes {
		b.origin = append(b.origin, i)
	}
	return b, nil
}

// newBlock is an empty one. Its sequence number begins with the time, so that a
// block that is deleted and made again does not repeat those of before.
func newBlock(cidr netip.Prefix, node string, now time.Time) *block {
	affinity, at := hostAffinity(node), metav1.NewTime(now.UTC())
	size := 1 << (cidr.Addr().BitLen() - cidr.Bits())
	b := &block{cidr: cidr, obj: newObject(blockRef(cidr), map[string]any{})}
	b.spec = source.IPAMBlockSpec{
		CIDR: cidr.String(), Affinity: &affinity, AffinityClaimTime: &at,
		Allocations: make([]*int, size), Unallocated: make([]int, size),
		Attributes: []source.IPAMBlockAttribute{}, SequenceNumber: uint64(now.UnixNano()),
	}
	for i := range b.spec.Unallocated {
		b.spec.Unallocated[i] = i
	}
	return b
}

func hostAffinity(node string) string { return "host:" + node }

// clone is a block that can be changed without changing b.
func (b *block) clone() *block {
	c := *b
	c.spec.Allocations = slices.Clone(b.spec.Allocations)
	c.spec.Unallocated = slices.Clone(b.spec.Unallocated)
	c.spec.Attributes = slices.Clone(b.spec.Attributes)
	c.spec.SequenceNumberForAllocation = maps.Clone(b.spec.SequenceNumberForAllocation)
	c.origin = slices.Clone(b.origin)
	return &c
}

// object is the block as it is to be written.
func (b *block) object() (*unstructured.Unstructured, error) {
	obj := b.obj.DeepCopy()
	old, _, _ := unstructured.NestedSlice(b.obj.Object, "spec", "attributes")
	if err := writeSpec(obj, &b.spec); err != nil {
		return nil, fmt.Errorf("IPAMBlock %s: %w", b.cidr, err)
	}
	attrs, _, _ := unstructured.NestedSlice(obj.Object, "spec", "attributes")
	for i, from := range b.origin {
		if from >= 0 && from < len(old) {
			attrs[i] = old[from]
		}
	}
	// Earlier CRDs want every one of these, null or false as they are.
	err := unstructured.SetNestedSlice(obj.Object, attrs, "spec", "attributes")
	if err == nil {
		err = unstructured.SetNestedField(obj.Object, b.spec.Deleted, "spec", "deleted")
	}
	return obj, err
}

// node is whose the block is; empty: nobody's, or no node's.
func (b *block) node() string {
	if b.spec.Affinity == nil {
		return ""
	}
	node, ok := strings.CutPrefix(*b.spec.Affinity, "host:")
	if !ok {
		return ""
	}
	return node
}

// empty reports whether nobody has an address of it.
func (b *block) empty() bool {
	return !slices.ContainsFunc(b.spec.Allocations, func(at *int) bool { return at != nil })
}

// age is how long the block has been its node's.
func (b *block) age(now time.Time) time.Duration {
	if b.spec.AffinityClaimTime == nil {
		return now.Sub(time.Time{})
	}
	return now.Sub(b.spec.AffinityClaimTime.Time)
}

func (b *block) addr(ordinal int) netip.Addr {
	raw := b.cidr.Addr().AsSlice()
	for i, carry := len(raw)-1, ordinal; carry > 0; i-- {
		carry += int(raw[i])
		raw[i] = byte(carry)
		carry >>= 8
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// ordinal is an address' place in the block, which must hold it.
func (b *block) ordinal(a netip.Addr) int {
	base, raw, n := b.cidr.Addr().AsSlice(), a.AsSlice(), 0
	for i := max(0, len(raw)-4); i < len(raw); i++ {
		n = n<<8 + int(raw[i]) - int(base[i])
	}
	return n
}

// attributes are those of an address that is given; nil: it is free.
func (b *block) attributes(ordinal int) *source.IPAMBlockAttribute {
	if at := b.spec.Allocations[ordinal]; at != nil {
		return &b.spec.Attributes[*at]
	}
	return nil
}

// next is the address that has been free for the longest time and that skip lets pass.
func (b *block) next(skip func(netip.Addr) bool) (netip.Addr, bool) {
	for _, ord := range b.spec.Unallocated {
		if a := b.addr(ord); b.spec.Allocations[ord] == nil && !skip(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// assign gives a free address.
func (b *block) assign(a netip.Addr, handle string, attrs map[string]string) {
	ord := b.ordinal(a)
	at := b.attribute(handle, attrs)
	b.spec.Allocations[ord] = &at
	b.spec.Unallocated = slices.DeleteFunc(b.spec.Unallocated, func(o int) bool { return o == ord })
	if b.spec.SequenceNumberForAllocation == nil {
		b.spec.SequenceNumberForAllocation = map[string]uint64{}
	}
	b.spec.SequenceNumberForAllocation[strconv.Itoa(ord)] = b.spec.SequenceNumber
}

// attribute finds the entry that says the same, or adds one.
func (b *block) attribute(handle string, attrs map[string]string) int {
	for i := range b.spec.Attributes {
		at := &b.spec.Attributes[i]
		if handleOf(at) == handle && at.HandleID != nil && maps.Equal(at.Secondary, attrs) && at.ReleasedAt == nil && len(at.AlternateOwnerAttrs) == 0 {
			return i
		}
	}
	b.spec.Attributes = append(b.spec.Attributes, source.IPAMBlockAttribute{HandleID: &handle, Secondary: attrs})
	b.origin = append(b.origin, -1)
	return len(b.spec.Attributes) - 1
}

// handleOf is an attribute's handle. Some were written with a line end and more
// behind it (projectcalico/cni-plugin issue 821).
func handleOf(at *source.IPAMBlockAttribute) string {
	if at.HandleID == nil {
		return ""
	}
	id, _, _ := strings.Cut(*at.HandleID, "\r")
	return id
}

// holder is an address that is given: to whom, and since which write of the block.
type holder struct {
	addr   netip.Addr
	handle string
	seq    uint64
	attrs  map[string]string
	// released is since when nobody uses it any more, as somebody has written; zero: it is in use.
	released time.Time
}

func (b *block) holders() (all []holder) {
	for ord := range b.spec.Allocations {
		if at := b.attributes(ord); at != nil {
			h := holder{b.addr(ord), handleOf(at), b.spec.SequenceNumberForAllocation[strconv.Itoa(ord)], at.Secondary, time.Time{}}
			if at.ReleasedAt != nil {
				h.released = at.ReleasedAt.Time
			}
			all = append(all, h)
		}
	}
	return all
}

// count is how many addresses a handle has.
func (b *block) count(handle string) (n int) {
	for _, h := range b.holders() {
		if h.handle == handle {
			n++
		}
	}
	return n
}

// release takes back what match says, at the end of the line of free ones, and
// drops the attributes that nothing refers to any more.
func (b *block) release(match func(holder) bool) (n int) {
	for _, h := range b.holders() {
		if !match(h) {
			continue
		}
		ord := b.ordinal(h.addr)
		b.spec.Allocations[ord] = nil
		if !slices.Contains(b.spec.Unallocated, ord) {
			b.spec.Unallocated = append(b.spec.Unallocated, ord)
		}
		delete(b.spec.SequenceNumberForAllocation, strconv.Itoa(ord))
		n++
	}
	if n > 0 {
		b.dropAttributes()
	}
	return n
}

func (b *block) dropAttributes() {
	used := make([]bool, len(b.spec.Attributes))
	for _, at := range b.spec.Allocations {
		if at != nil {
			used[*at] = true
		}
	}
	place := make([]int, len(used))
	attrs, origin := []source.IPAMBlockAttribute{}, []int{}
	for i := range used {
		if place[i] = len(attrs); used[i] {
			attrs, origin = append(attrs, b.spec.Attributes[i]), append(origin, b.origin[i])
		}
	}
	for ord, at := range b.spec.Allocations {
		if at != nil {
			b.spec.Allocations[ord] = &place[*at]
		}
	}
	b.spec.Attributes, b.origin = attrs, origin
}

// readSpec fills a Go value with an object's spec.
func readSpec(obj *unstructured.Unstructured, to any) error {
	text, err := json.Marshal(obj.Object["spec"])
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		return fmt.Errorf("spec: %w", err)
	}
	return nil
}

// writeSpec puts the fields of a Go value into an object's spec, in the place of
// those of the same names and beside all others.
func writeSpec(obj *unstructured.Unstructured, from any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	var fields map[string]any
	if err := kjson.Unmarshal(text, &fields); err != nil {
		return err
	}
	spec, _ := obj.Object["spec"].(map[string]any)
	if spec == nil {
		spec = map[string]any{}
	}
	for _, name := range omitted[fmt.Sprintf("%T", from)] {
		delete(spec, name)
	}
	maps.Copy(spec, fields)
	obj.Object["spec"] = spec
	return nil
}

// omitted are the fields that are left out of JSON when they are empty, which then
// must go from the object, too.
var omitted = map[string][]string{
	"*source.IPAMBlockSpec": {"affinity", "affinityClaimTime", "sequenceNumberForAllocation", "deleted"},
}
