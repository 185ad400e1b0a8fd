package pods

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/ctrl/podlink"
)

// testdata/state-1 is the state directory of culvertd when its form was 1: a veth, a TAP, a
// veth of the time before there were TAPs, and an ADD that was cut short. It does not
// change: another form gets another directory.
const formOne = "testdata/state-1"

// copyState copies a state directory, with change made to every file.
func copyState(t *testing.T, from string, change func([]byte) []byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	for _, path := range append(files, filepath.Join(dir, "ipam.json")) {
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, change(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What a culvertd of before has left is taken up: its pods work, with their addresses.
// What a newer one has added to the files is overlooked, and stays.
func TestUpgradeAndDowngrade(t *testing.T) {
	newer := func(text []byte) []byte {
		if bytes.HasPrefix(text, []byte(`{"`)) { // ipam.json: fields of a range
			return bytes.ReplaceAll(text, []byte(`{"cursor"`), []byte(`{"ofANewerVersion":[{"a":1}],"cursor"`))
		}
		return bytes.Replace(text, []byte("{\n"), []byte("{\n  \"ofANewerVersion\": {\"a\": [1, 2]},\n"), 1)
	}
	for name, change := range map[string]func([]byte) []byte{
		"older": func(text []byte) []byte { return text }, "newer": newer,
	} {
		t.Run(name, func(t *testing.T) {
			dir, w := copyState(t, formOne, change), newWorld()
			mac, _ := net.ParseMAC("86:b0:69:18:57:ff")
			hosts := map[string]string{"cv5ac5088bbee": "0a1b", "cvd7217055908": "0a2c", "cv6aa8d62d8ab": "0a3d"}
			files := map[string][]byte{}
			for host, container := range hosts {
				w.links[host], w.index[host] = podlink.Spec{Ref: podlink.Ref{HostName: host}, MAC: mac, MTU: 1450}, 40+len(w.index)
				path := filepath.Join(dir, "pods", container+"@eth0.json")
				files[path], _ = os.ReadFile(path)
			}
			m := newManager(t, w, dir)
			if err := m.Restore(context.Background()); err != nil {
				t.Fatal(err)
			}
			mustAgree(t, m, w)
			if got := fmt.Sprint(podsOf(m)); got != "[a1 veth [10.244.1.2 fd00:1::2] a2 tap [10.244.1.3 fd00:1::3] a3  [10.244.1.4 fd00:1::4]]" {
				t.Errorf("restored %s", got)
			}
			for path, before := range files {
				if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
					t.Errorf("%s was changed to\n%s (%v)", path, after, err)
				}
			}
			if res := must(t, m, call("ADD", "n", "n")); !strings.Contains(string(res), "10.244.1.6/32") {
				t.Errorf("the first address after: %s", res)
			}
			for _, container := range append([]string{"n"}, "0a1b", "0a2c", "0a3d", "0a4e") {
				must(t, m, call("DEL", container, ""))
			}
			mustBeEmpty(t, m, w)
		})
	}
}

// podsOf is what a manager says of its pods, in short.
func podsOf(m *Manager) (all []string) {
	for _, r := range m.List() {
		all = append(all, fmt.Sprint(r.Pod, " ", r.Kind, " ", r.Addrs))
	}
	return all
}
