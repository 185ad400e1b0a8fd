package pods

import (
	"bytes"
	"encoding/json"

	"culvert/ctrl/api"
)

// promises are capabilities that Culvert does not have and whose values, if they were
// passed over, would leave a pod without what somebody relies on. The rest (dns, aliases,
// cgroupPath, pod annotations) asks nothing of the network.
type promises struct {
	Bandwidth      json.RawMessage `json:"bandwidth"`
	IPRanges       json.RawMessage `json:"ipRanges"`
	DeviceID       json.RawMessage `json:"deviceID"`
	InfinibandGUID json.RawMessage `json:"infinibandGUID"`
}

// refuse names the first that is asked for.
func (p *promises) refuse() error {
	for _, c := range []struct {
		name  string
		value json.RawMessage
	}{{"bandwidth", p.Bandwidth}, {"ipRanges", p.IPRanges}, {"deviceID", p.DeviceID}, {"infinibandGUID", p.InfinibandGUID}} {
		switch string(bytes.TrimSpace(c.value)) {
		case "", "null", "{}", "[]", `""`:
			continue
		}
		return refuse(api.CNIUnsupportedField, "runtimeConfig.%s: culvert-cni does not have the capability %[1]s, which its configuration declares", c.name)
	}
	return nil
}
