package cniconf

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const (
	socket  = "/run/culvert/culvert.sock"
	list    = `{"cniVersion":"1.0.0","name":"culvert","plugins":[{"type":"culvert-cni"},{"type":"portmap"}]}`
	single  = `{"cniVersion":"1.0.0","name":"culvert","type":"culvert-cni","socket":"/run/culvert/culvert.sock"}`
	foreign = `{"cniVersion":"0.3.1","name":"cbr0","plugins":[{"type":"flannel"}]}`
)

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	for _, c := range []struct{ name, text, wrong string }{
		{"10-culvert.conflist", list, ""},
		{"10-culvert.conf", single, ""},
		{"10-culvert.txt", list, "rename"},
		{"10-culvert.conflist", "{", "is no JSON"},
		{"10-culvert.conflist", foreign, `first plugin is "flannel"`},
		{"10-culvert.conflist", `{"plugins":[{"type":"portmap"},{"type":"culvert-cni"}]}`, `first plugin is "portmap"`},
		{"10-culvert.conf", strings.Replace(single, "culvert.sock", "c.sock", 1), "asks at /run/culvert/c.sock"},
	} {
		conf, err := Load(write(t, t.TempDir(), c.name, c.text), socket)
		switch {
		case c.wrong == "" && (err != nil || conf.Name != c.name):
			t.Errorf("%s: %+v, %v", c.text, conf, err)
		case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%s %s: %v, want %q", c.name, c.text, err, c.wrong)
		}
	}
}

// TestInstall: what is there already, or somebody else's, is not touched.
func TestInstall(t *testing.T) {
	conf, err := Load(write(t, t.TempDir(), "10-culvert.conflist", list), socket)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, want := range []bool{true, false} {
		if changed, err := conf.Install(dir); err != nil || changed != want {
			t.Errorf("changed %v, %v; want %v", changed, err, want)
		}
	}
	path := write(t, dir, "10-culvert.conflist", single)
	if changed, err := conf.Install(dir); err != nil || !changed {
		t.Errorf("over an older one: %v, %v", changed, err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != list {
		t.Errorf("%s, %v", got, err)
	}
	for _, text := range []string{foreign, "not JSON"} {
		write(t, dir, "10-culvert.conflist", text)
		if changed, err := conf.Install(dir); changed || err == nil || !strings.Contains(err.Error(), "not Culvert's") {
			t.Errorf("over %s: %v, %v", text, changed, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%s was overwritten: %s, %v", text, got, err)
		}
	}
	if _, err := conf.Install(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that is not there was written to")
	}
}

// TestOthers: what libcni's ConfFiles would list, by name.
func TestOthers(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"05-cilium.conflist": foreign, "10-culvert.conflist": list, "11-old.conf": single, "20-x.json": "{", ".tmp-123": list, "README": "x", "99-x.conf.bak": foreign,
	} {
		write(t, dir, name, text)
	}
	got, err := Others(dir, "10-culvert.conflist")
	want := []Other{{"05-cilium.conflist", true, false}, {"11-old.conf", false, true}, {"20-x.json", false, false}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

// TestInstallPlugin: a program that runs goes on and can be replaced.
func TestInstallPlugin(t *testing.T) {
	from, dir := t.TempDir(), t.TempDir()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	source := write(t, from, PluginType, string(program))
	path := filepath.Join(dir, PluginType)
	for _, want := range []bool{true, false} {
		if changed, err := InstallPlugin(source, dir); err != nil || changed != want {
			t.Fatalf("changed %v, %v; want %v", changed, err, want)
		}
	}
	running := exec.Command(path, "60")
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	write(t, from, PluginType, "#!/bin/sh\necho new\n")
	if changed, err := InstallPlugin(source, dir); err != nil || !changed {
		t.Errorf("replacing it: %v, %v", changed, err)
	}
	if out, err := exec.Command(path).CombinedOutput(); err != nil || string(out) != "new\n" {
		t.Errorf("%s, %v", out, err)
	}
	if err := running.Process.Kill(); err != nil {
		t.Errorf("the one of before had ended: %v", err)
	}
	_ = running.Wait() // killed
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if changed, err := InstallPlugin(source, dir); err != nil || !changed {
		t.Errorf("one that cannot be executed stays: %v, %v", changed, err)
	}
}

func TestInstallPluginRefuses(t *testing.T) {
	from, dir := t.TempDir(), t.TempDir()
	source, path := write(t, from, PluginType, "x"), filepath.Join(dir, PluginType)
	if err := os.Symlink("/bin/true", path); err != nil {
		t.Fatal(err)
	}
	if _, err := InstallPlugin(source, dir); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("over a link: %v", err)
	}
	if st, err := os.Lstat(path); err != nil || st.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link is gone: %v, %v", st, err)
	}
	if _, err := InstallPlugin(filepath.Join(from, "none"), dir); err == nil {
		t.Error("a program that is not there was installed")
	}
}
