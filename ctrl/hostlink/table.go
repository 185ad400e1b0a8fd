package hostlink

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What pods send to a Service comes by culvert0, and kube-proxy may send it on out of the
// cluster: the API server's endpoint is no pod, nor are those in the node's network. There
// the pod's address means nothing, and the answer has to come back by here to be
// translated. So such packets get the node's address on their way out, as with flanneld's
// --ip-masq and Calico's natOutgoing; one rule in a table of its own does it. What pods send
// out of the cluster by themselves never looks like that.

// tableName is that of the table, of the family inet.
const tableName = "culvert"

// ipsDstNAT is IPS_DST_NAT of include/uapi/linux/netfilter/nf_conntrack_common.h.
const ipsDstNAT = 1 << 5

// tableWant is what the table is made of.
type tableWant struct {
	pods []netip.Prefix
	own  []netip.Addr
}

func (w *tableWant) equal(o *tableWant) bool {
	return slices.Equal(w.pods, o.pods) && slices.Equal(w.own, o.own)
}

// syncTable makes the table what it is to be.
func (l *Link) syncTable(want tableWant) error {
	pods := want.pods
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("nftables: listing tables (pods do not reach Services outside of the cluster, the API server's among them, without): %w", err)
	}
	there := slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName })
	if there && l.table.equal(&want) || !there && len(pods) == 0 {
		return nil
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	conn.AddTable(table) // or there would be nothing to delete
	conn.DelTable(table)
	if len(pods) > 0 {
		conn.AddTable(table)
		chain := conn.AddChain(&nftables.Chain{
			Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		for _, p := range pods {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: masquerade(p)})
		}
		chain = conn.AddChain(&nftables.Chain{
			Name: "raw", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
		})
		for _, a := range want.own {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: untracked(a)})
		}
	}
	if err := conn.Flush(); err != nil { // all of it, or nothing
		return fmt.Errorf("nftables: writing the table %s: %w", tableName, err)
	}
	l.table = tableWant{slices.Clone(pods), slices.Clone(want.own)}
	return nil
}

// masquerade is: oifname != "culvert0" ip saddr PREFIX ct status dnat masquerade.
func masquerade(from netip.Prefix) []expr.Any {
	return slices.Concat(device(expr.MetaKeyOIFNAME, expr.CmpOpNeq), source(from), []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(ipsDstNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Masq{},
	})
}

// untracked is: iifname "culvert0" ip saddr ADDRESS notrack.
func untracked(own netip.Addr) []expr.Any {
	return slices.Concat(device(expr.MetaKeyIIFNAME, expr.CmpOpEq), source(hostPrefix(own)), []expr.Any{&expr.Notrack{}})
}

// device compares the name of a packet's device with ours.
func device(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, Name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: name}}
}

// source compares a packet's source.
func source(from netip.Prefix) []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(12)
	if from.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, 8
	}
	addr := from.Masked().Addr().AsSlice()
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(addr))},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(addr)), Mask: ipNet(from).Mask, Xor: make([]byte, len(addr))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addr},
	}
}

// removeTable takes the table away, in the network namespace of the calling thread.
func removeTable() (removed bool, err error) {
	conn, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("nftables: %w", err)
	}
	if !hasTable() {
		return false, nil
	}
	conn.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	if err := conn.Flush(); err != nil {
		return false, fmt.Errorf("nftables: removing the table %s: %w", tableName, err)
	}
	return true, nil
}

// hasTable reports whether the table is there; without nftables it is not.
func hasTable() bool {
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	return err == nil && slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName })
}
