package main

import (
	"bytes"
	"testing"

	"culvert/ctrl/api"
)

func TestMultipathRouteIsPrintedAsIPRouteDoes(t *testing.T) {
	var out bytes.Buffer
	printRoutes(&out, []api.Route{{
		Dst: "10.244.2.0/24", Kind: "vxlan", Via: "192.168.0.42", Dev: "eth0", VNI: 4096, MAC: "66:61:0d:36:b4:86", Protocol: "culvert", MTU: 1450,
		NextHops: []api.NextHop{
			{Gateway: "10.77.0.2", Dev: "eth0", Weight: 3, Buckets: 192},
			{Via: "192.168.0.43", Dev: "eth1", Weight: 1, Buckets: 64, Unresolved: true},
		},
	}})
	const want = "10.244.2.0/24 via 192.168.0.42 encap vxlan id 4096 lladdr 66:61:0d:36:b4:86 proto culvert mtu 1450\n" +
		"\tnexthop via 10.77.0.2 dev eth0 weight 3 buckets 192\n" +
		"\tnexthop via 192.168.0.43 dev eth1 weight 1 buckets 64 unresolved\n"
	if out.String() != want {
		t.Errorf("got:\n%swant:\n%s", out.String(), want)
	}
}
