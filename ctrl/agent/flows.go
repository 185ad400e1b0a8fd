package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"culvert/ctrl/diskfile"
	"culvert/dataplane/flow"
	"culvert/internal/packet"
)

// What of a flow cannot be seen from its next packet is kept over a restart: that the
// node's own stack began it, so that answers have to go there, and how it is translated.
// A connection to a Service would end otherwise, if the endpoint were the first to speak:
// the pod would get what it knows nothing of, and reset it.

const (
	flowsName = "flows.json"
	mostFlows = 65536
	// flowsAge is how old what was kept may be: a restart is quick, and peers' ports are used
	// again.
	flowsAge = time.Minute
)

// keptFlows are those of a culvertd that has ended.
type keptFlows struct {
	Saved time.Time  `json:"saved"`
	Flows []keptFlow `json:"flows"`
}

type keptFlow struct {
	Orig  keptKey `json:"orig"`
	Reply keptKey `json:"reply"`
	Host  bool    `json:"host,omitempty"` // the node's own stack began it
}

// keptKey is a packet.Key of TCP.
type keptKey struct {
	Src netip.AddrPort `json:"src"`
	Dst netip.AddrPort `json:"dst"`
}

func keyToKeep(k *packet.Key) keptKey {
	return keptKey{netip.AddrPortFrom(k.Src.Netip(), k.SrcPort), netip.AddrPortFrom(k.Dst.Netip(), k.DstPort)}
}

func (k *keptKey) key() (out packet.Key, ok bool) {
	src, dst := k.Src.Addr(), k.Dst.Addr()
	if !src.IsValid() || !dst.IsValid() || src.Is4() != dst.Is4() {
		return out, false
	}
	out = packet.Key{Src: packet.AddrFrom(src), Dst: packet.AddrFrom(dst), SrcPort: k.Src.Port(), DstPort: k.Dst.Port(), Proto: packet.ProtoTCP, Family: 6}
	if src.Is4() {
		out.Family = 4
	}
	return out, true
}

// keepFlows writes them, while frames still pass.
func (a *Agent) keepFlows() error {
	var kept keptFlows
	a.engine.FlowTable().Range(func(v flow.View) bool {
		if v.Proto == "tcp" && v.Assured && (v.FromHost || v.Orig != v.Reply.Reverse()) {
			kept.Flows = append(kept.Flows, keptFlow{keyToKeep(&v.Orig), keyToKeep(&v.Reply), v.FromHost})
		}
		return len(kept.Flows) < mostFlows
	})
	if len(kept.Flows) == 0 {
		return nil
	}
	kept.Saved = time.Now()
	data, err := json.Marshal(kept)
	if err == nil {
		err = diskfile.Write(filepath.Join(a.cfg.StateDir, flowsName), data, false)
	}
	if err != nil {
		return fmt.Errorf("keeping the flows that the node's stack began or that are translated: %w", err)
	}
	return nil
}

// restoreFlows takes them up, before the workers run, and forgets the file.
func (a *Agent) restoreFlows() {
	path := filepath.Join(a.cfg.StateDir, flowsName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	_ = os.Remove(path)
	var kept keptFlows
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err != nil {
		a.log.Warn("connections to Services and out of the cluster may end: what was kept of them cannot be read", "cause", err)
		return
	}
	if age := time.Since(kept.Saved); age < 0 || age > flowsAge {
		return
	}
	restored := 0
	for i := range kept.Flows {
		f := &kept.Flows[i]
		orig, ok := f.Orig.key()
		reply, ok2 := f.Reply.key()
		owner := uint16(flow.Wire)
		if f.Host {
			owner = flow.Host
		}
		if ok && ok2 && a.engine.FlowTable().Restore(&orig, &reply, owner, a.engine.Now()) {
			restored++
		}
	}
	a.log.Info("flows of before the restart", "restored", restored, "of", len(kept.Flows))
}
