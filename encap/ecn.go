package encap

import "culvert/internal/drop"

// ECN field values (RFC 3168 5).
const (
	notECT = 0
	ect1   = 1
	ect0   = 2
	ce     = 3
)

// DecapECN is the inner TOS (or traffic class) after decapsulation, by the table
// of RFC 6040 4.2 as Linux has it (__INET_ECN_decapsulate and
// INET_ECN_decapsulate, include/net/inet_ecn.h):
//
//	inner \ outer   Not-ECT   ECT(0)    ECT(1)    CE
//	Not-ECT         Not-ECT   Not-ECT   Not-ECT   drop
//	ECT(0)          ECT(0)    ECT(0)    ECT(1)    CE
//	ECT(1)          ECT(1)    ECT(1)    ECT(1)    CE
//	CE              CE        CE        CE        CE
//
// The DSCP of the inner header stays, that of the outer is lost.
func DecapECN(outerTOS, innerTOS uint8) (newInnerTOS uint8, r drop.Reason) {
	switch outer, inner := outerTOS&3, innerTOS&3; {
	case outer == ce && inner == notECT:
		return innerTOS, drop.TunnelECN
	case outer == ce:
		return innerTOS | ce, drop.None
	case outer == ect1 && inner == ect0:
		return innerTOS&^3 | ect1, drop.None
	}
	return innerTOS, drop.None
}
