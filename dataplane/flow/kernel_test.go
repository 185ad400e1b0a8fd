package flow

import (
	"strings"
	"testing"
)

// kernelTable is tcp_conntracks of net/netfilter/nf_conntrack_proto_tcp.c as it
// stands there: a row an event, a column a state.
var kernelTable = [2]map[tcpEvent]string{
	Original: {
		//         sNO, sSS, sSR, sES, sFW, sCW, sLA, sTW, sCL, sS2
		evSYN:    "sSS, sSS, sIG, sIG, sIG, sIG, sIG, sSS, sSS, sS2",
		evSYNACK: "sIV, sIV, sSR, sIV, sIV, sIV, sIV, sIV, sIV, sSR",
		evFIN:    "sIV, sIV, sFW, sFW, sLA, sLA, sLA, sTW, sCL, sIV",
		evACK:    "sES, sIV, sES, sES, sCW, sCW, sTW, sTW, sCL, sIV",
		evRST:    "sIV, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL",
		evNone:   "sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV",
	},
	Reply: {
		//         sNO, sSS, sSR, sES, sFW, sCW, sLA, sTW, sCL, sS2
		evSYN:    "sIV, sS2, sIV, sIV, sIV, sIV, sIV, sSS, sIV, sS2",
		evSYNACK: "sIV, sSR, sIG, sIG, sIG, sIG, sIG, sIG, sIG, sSR",
		evFIN:    "sIV, sIV, sFW, sFW, sLA, sLA, sLA, sTW, sCL, sIV",
		evACK:    "sIV, sIG, sSR, sES, sCW, sCW, sTW, sTW, sCL, sIG",
		evRST:    "sIV, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL",
		evNone:   "sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV",
	},
}

var kernelStates = []string{"sNO", "sSS", "sSR", "sES", "sFW", "sCW", "sLA", "sTW", "sCL", "sS2"}

// kernelNext is the kernel's next state, sIV and sIG included.
func kernelNext(dir Direction, ev tcpEvent, s State) State {
	if dir == Reply && ev == evSYN && s == TimeWait {
		return SynSent2 // the one difference, see tcpNext
	}
	name := strings.Split(kernelTable[dir][ev], ", ")[s]
	for i, have := range kernelStates {
		if name == have {
			return State(i)
		}
	}
	if name == "sIG" {
		return sIG
	}
	return sIV
}

func TestTransitionsAreTheKernels(t *testing.T) {
	for dir := range Direction(2) {
		for ev := evSYN; ev <= evNone; ev++ {
			for s := None; s <= SynSent2; s++ {
				want := kernelNext(dir, ev, s)
				if got := tcpNext[dir][ev][s]; got != want {
					t.Errorf("%s, event %d in %s: %s, want %s", dir, ev, s, got, want)
				}
			}
		}
	}
}

func TestEventByFlags(t *testing.T) {
	for flags, want := range map[uint8]tcpEvent{
		tcpSYN: evSYN, tcpSYN | tcpACK: evSYNACK, tcpFIN | tcpACK: evFIN, tcpFIN: evFIN,
		tcpACK: evACK, tcpACK | tcpPSH: evACK, tcpRST: evRST, tcpRST | tcpACK: evRST, tcpRST | tcpSYN: evRST,
		tcpSYN | tcpFIN: evSYN, 0: evNone, tcpPSH: evNone,
	} {
		if got := tcpEvents[flags]; got != want {
			t.Errorf("flags %#x: event %d, want %d", flags, got, want)
		}
	}
}
