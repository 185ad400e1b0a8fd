package ipamtest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"culvert/ctrl/source"
)

// Check says what is inconsistent in the IPAM's objects, by the rules of
// `calicoctl ipam check` and stricter: every address that is given has a handle, every
// handle counts what it has and nothing else, every block has the confirmed affinity
// that it names and every confirmed affinity its block, and no ordinal is both free
// and given, or neither.
func Check(blocks, handles, affinities []*unstructured.Unstructured) (problems []string) {
	counts := map[string]map[string]int{} // by handle and block
	owners := map[string]string{}         // of blocks
	say := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for _, obj := range blocks {
		var b source.IPAMBlockSpec
		if err := spec(obj, &b); err != nil {
			say("block %s: %v", obj.GetName(), err)
			continue
		}
		problems = append(problems, checkBlock(&b, counts)...)
		if b.Affinity != nil {
			owners[b.CIDR] = *b.Affinity
		}
	}
	for _, obj := range handles {
		var h source.IPAMHandleSpec
		if err := spec(obj, &h); err != nil {
			say("handle %s: %v", obj.GetName(), err)
			continue
		}
		if len(h.Block) == 0 || h.Deleted {
			say("handle %s is empty, or marked as deleted", h.HandleID)
		}
		for block, n := range h.Block {
			if has := counts[h.HandleID][block]; has != n {
				say("handle %s counts %d in %s, which gives it %d", h.HandleID, n, block, has)
			}
			delete(counts[h.HandleID], block)
		}
	}
	for handle, of := range counts {
		for block, n := range of {
			say("%d addresses of %s have the handle %q, which does not know of them", n, block, handle)
		}
	}
	for _, obj := range affinities {
		var a source.BlockAffinitySpec
		if err := spec(obj, &a); err != nil {
			say("affinity %s: %v", obj.GetName(), err)
			continue
		}
		if a.State != "confirmed" || a.Deleted == "true" {
			say("affinity of %s to %s is %s, deleted %s", a.CIDR, a.Node, a.State, a.Deleted)
		}
		if owners[a.CIDR] != "host:"+a.Node {
			say("affinity of %s to %s: the block is of %q", a.CIDR, a.Node, owners[a.CIDR])
			continue
		}
		delete(owners, a.CIDR)
	}
	for block, owner := range owners {
		say("block %s is of %s, and there is no affinity", block, owner)
	}
	slices.Sort(problems)
	return problems
}

// checkBlock checks a block by itself and counts its addresses by handle.
func checkBlock(b *source.IPAMBlockSpec, counts map[string]map[string]int) (problems []string) {
	say := func(format string, args ...any) {
		problems = append(problems, fmt.Sprintf("block %s: ", b.CIDR)+fmt.Sprintf(format, args...))
	}
	p, err := netip.ParsePrefix(b.CIDR)
	if err != nil || len(b.Allocations) != 1<<(p.Addr().BitLen()-p.Bits()) {
		say("%d allocations", len(b.Allocations))
	}
	free := map[int]int{}
	for _, ord := range b.Unallocated {
		free[ord]++
	}
	used := make([]int, len(b.Attributes))
	for ord, at := range b.Allocations {
		if given := at != nil; given == (free[ord] == 1) || free[ord] > 1 {
			say("ordinal %d is given %v and %d times free", ord, given, free[ord])
		}
		_, hasSeq := b.SequenceNumberForAllocation[fmt.Sprint(ord)]
		if hasSeq != (at != nil) {
			say("ordinal %d is given %v and has a sequence number %v", ord, at != nil, hasSeq)
		}
		if at == nil {
			continue
		}
		if *at < 0 || *at >= len(used) || b.Attributes[*at].HandleID == nil {
			say("ordinal %d has no attributes with a handle", ord)
			continue
		}
		used[*at]++
		handle := *b.Attributes[*at].HandleID
		if counts[handle] == nil {
			counts[handle] = map[string]int{}
		}
		counts[handle][b.CIDR]++
	}
	for i, n := range used {
		if n == 0 {
			say("attributes[%d] are nobody's", i)
		}
	}
	return problems
}

func spec(obj *unstructured.Unstructured, to any) error {
	text, err := json.Marshal(obj.Object["spec"])
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}

// Check is the function Check of what the store has.
func (m *Memory) Check() []string {
	problems := Check(m.All("IPAMBlock"), m.All("IPAMHandle"), m.All("BlockAffinity"))
	m.mu.Lock()
	defer m.mu.Unlock()
	return append(problems, m.bad...)
}
