package api_test

import (
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"culvert/ctrl/api"
)

func TestCaptureRequestRoundTrip(t *testing.T) {
	all := api.CaptureRequest{
		Ports: []string{"eth0", "cv0123456789a"}, Direction: "drop", Reason: "no_route", Proto: "arp",
		Src: netip.MustParsePrefix("10.0.0.0/8"), Dst: netip.MustParsePrefix("fd00::1/128"), Addr: netip.MustParsePrefix("10.1.2.3/32"),
		Sport: 1, Dport: 2, L4Port: 3, Snaplen: 64, Count: 5, Duration: 90 * time.Second,
	}
	got, err := api.ParseCaptureRequest(all.Query())
	if err != nil || !reflect.DeepEqual(got, all) {
		t.Errorf("%+v, %v\nwant %+v", got, err, all)
	}
	got, err = api.ParseCaptureRequest((&api.CaptureRequest{}).Query())
	want := api.CaptureRequest{Direction: "any", Snaplen: api.DefaultSnaplen, Count: api.DefaultCaptureCount, Duration: api.DefaultCaptureDuration}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("nothing asked for: %+v, %v\nwant %+v", got, err, want)
	}
}

func TestCaptureRequestRefuses(t *testing.T) {
	for query, says := range map[string]string{
		"direction=up":        "no direction",
		"reason=none":         "no drop reason",
		"reason=bogus":        "no drop reason",
		"proto=bogus":         "no protocol",
		"src=10.0.0.300":      "no IP address",
		"dst=10.0.0.0/33":     "no prefix",
		"addr=fe80::1%25eth0": "no IP address",
		"sport=65536":         "no port number",
		"l4port=x":            "no port number",
		"snaplen=0":           "from 1 to 262158",
		"snaplen=262159":      "from 1 to 262158",
		"count=-1":            "from 1 to",
		"duration=0s":         "no duration",
		"duration=25h":        "no duration",
		"duration=5":          "no duration",
		"count=1&count=2":     "2 times",
		"filter=tcp":          "no such option",
	} {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := api.ParseCaptureRequest(v); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v; want an error that says %q", query, q, err, says)
		}
	}
}

// What is taken is taken again from what it is written as.
func FuzzCaptureRequest(f *testing.F) {
	f.Add("port=eth0&port=a&direction=rx&proto=tcp&src=10.0.0.0/8&sport=1&count=3&duration=5s")
	f.Add("proto=255&addr=::ffff:10.0.0.1&snaplen=262158")
	f.Add("duration=1h2m3.5s&reason=ttl_exceeded")
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		q, err := api.ParseCaptureRequest(v)
		if err != nil {
			return
		}
		if again, err := api.ParseCaptureRequest(q.Query()); err != nil || !reflect.DeepEqual(again, q) {
			t.Errorf("%q: %+v, read back as %+v, %v", query, q, again, err)
		}
	})
}
