package pods

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/ctrl/api"
	"culvert/ctrl/diskfile"
)

func TestRestore(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	m := newManager(t, w, dir)
	for i := range 4 {
		must(t, m, call("ADD", fmt.Sprint("c", i), fmt.Sprint("p", i)))
	}
	before := m.List()
	must(t, m, call("DEL", "c3", ""))

	w = w.afterCrash()
	delete(w.links, before[1].HostName) // its namespace went while culvertd was down
	m = newManager(t, w, dir)
	if err := os.WriteFile(filepath.Join(m.store.dir, diskfile.TempPrefix+"x"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Restore(context.Background()); err != nil {
			t.Fatal(err)
		}
		mustAgree(t, m, w)
	}
	if l := m.List(); len(l) != 2 || fmt.Sprint(l[0], l[1]) != fmt.Sprint(before[0], before[2]) {
		t.Errorf("restored %+v, before %+v", l, before)
	}
	must(t, m, call("CHECK", "c0", "p0"))
	// c3's address, released before the restart, is not the next to be given.
	if res := must(t, m, call("ADD", "n", "n")); !strings.Contains(string(res), "10.244.1.6/32") {
		t.Errorf("first ADD after the restart: %s", res)
	}
	must(t, m, call("DEL", "c1", "p1")) // comes late
	mustAgree(t, m, w)
}

func TestRestoreGoesOnWithoutABadRecord(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	m := newManager(t, w, dir)
	for i := range 3 {
		must(t, m, call("ADD", fmt.Sprint("c", i), fmt.Sprint("p", i)))
	}
	recs := m.List()
	bad := map[string]string{
		"c1@eth0.json": "{\"containerID\":", "x@eth0.json": "", "y@eth0.json": "{}",
		"z@eth0.json": `{"containerID":"c0","ifName":"eth0","hostName":"cv1","state":"ready","mac":"02:00:00:00:00:01"}`,
		"v@eth0.json": `{"containerID":"v","ifName":"eth0","hostName":"../x","state":"ready","mac":"02:00:00:00:00:01"}`,
		"w@eth0.json": `{"containerID":"w","ifName":"eth0","hostName":"cvw","state":"ready","mac":"02:00:00:00:00:01","addrs":["10.244.1.2"]}`,
	}
	for name, content := range bad {
		if err := os.WriteFile(filepath.Join(m.store.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w = w.afterCrash()
	m = newManager(t, w, dir)
	err := m.Restore(context.Background())
	if err == nil || strings.Count(err.Error(), "set aside") != 5 || !strings.Contains(err.Error(), "in use by c0@eth0") {
		t.Errorf("problems: %v", err)
	}
	if l := m.List(); len(l) != 2 || l[0].ContainerID != recs[0].ContainerID || l[1].ContainerID != recs[2].ContainerID || len(w.attached) != 2 {
		t.Errorf("restored: %+v", l)
	}
}

func TestRestoreTriesAgain(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	m := newManager(t, w, dir)
	must(t, m, call("ADD", "c1", "web"))
	w = w.afterCrash()
	m = newManager(t, w, dir)
	w.fail = "attach"
	if err := m.Restore(context.Background()); err == nil || !strings.Contains(err.Error(), "default/web") {
		t.Errorf("restore: %v", err)
	}
	mustFail(t, m, call("CHECK", "c1", "web"), 105, "not attached")
	w.fail = ""
	if err := m.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	mustAgree(t, m, w)
	must(t, m, call("CHECK", "c1", "web"))
}

// What Restore could not attach is listed as such and attached later, while
// other pods come and go; a DEL that got stuck is not undone by that.
func TestRetry(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	m := newManager(t, w, dir)
	must(t, m, call("ADD", "c1", "web"))
	must(t, m, call("ADD", "c2", "gone"))
	lost := m.List()[0].HostName // default/gone
	w = w.afterCrash()
	m = newManager(t, w, dir)
	w.fail = "attach"
	if err := m.Restore(context.Background()); err == nil {
		t.Fatal("restored although attaching fails")
	}
	for _, rec := range m.List() {
		if p := rec.API(); p.State != "detached" || !strings.Contains(p.Error, errInjected.Error()) {
			t.Errorf("listed as %+v", p)
		}
	}
	if err := m.Retry(context.Background()); err == nil || !strings.Contains(err.Error(), "default/web") {
		t.Errorf("retry: %v", err)
	}
	w.fail = ""
	must(t, m, call("ADD", "c3", "new"))
	w.fail = "remove"
	mustFail(t, m, call("DEL", "c3", "new"), api.CNILinkFailed, "")
	w.fail = ""
	delete(w.links, lost)
	if err := m.Retry(context.Background()); err != nil {
		t.Fatal(err)
	}
	l := m.List()
	if len(l) != 2 || l[0].Pod != "new" || l[0].State != StateDetached || l[1].Pod != "web" || l[1].State != StateReady || l[1].Cause != "" || len(w.attached) != 1 {
		t.Errorf("after the retry: %+v, ports %v", l, w.attached)
	}
	must(t, m, call("DEL", "c3", "new"))
	mustAgree(t, m, w)
	must(t, m, call("CHECK", "c1", "web"))
}

// losing is a dataplane under which links vanish while it attaches them.
type losing struct{ *world }

func (l losing) Attach(rec Record) error {
	if err := l.world.Attach(rec); err != nil {
		return err
	}
	l.mu.Lock()
	delete(l.links, rec.HostName)
	l.mu.Unlock()
	return nil
}

// The notice that a link is gone comes before its pod counts as attached.
func TestLinkVanishesDuringADD(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	m.cfg.Attacher = losing{w}
	mustFail(t, m, call("ADD", "c1", "web"), api.CNIAttachFailed, "vanished")
	mustBeEmpty(t, m, w)
}

// TestCrashAtEveryStep stops the world before every step of ADD and DEL, and
// starts a new manager on what the disk and the kernel hold at that moment:
// everything must agree, a DEL must clean up, and the address must be free.
func TestCrashAtEveryStep(t *testing.T) {
	type moment struct {
		name  string
		dir   string
		world *world
	}
	var moments []moment
	w, dir := newWorld(), t.TempDir()
	m := newManager(t, w, dir)
	must(t, m, call("ADD", "other", "other"))
	phase := ""
	stop := func(step string) {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		moments = append(moments, moment{phase + " before " + step, copied, w.afterCrash()})
	}
	w.before = stop
	phase = "ADD"
	must(t, m, call("ADD", "c1", "web"))
	stop("end")
	phase = "DEL"
	must(t, m, call("DEL", "c1", "web"))
	stop("end")
	if len(moments) != 6 {
		t.Fatalf("moments: %v", moments)
	}
	for _, c := range moments {
		t.Run(c.name, func(t *testing.T) {
			m := newManager(t, c.world, c.dir)
			if err := m.Restore(context.Background()); err != nil {
				t.Fatal(err)
			}
			mustAgree(t, m, c.world)
			must(t, m, call("DEL", "c1", "web"))
			must(t, m, call("ADD", "c1", "web"))
			must(t, m, call("DEL", "c1", "web"))
			must(t, m, call("CHECK", "other", "other"))
			must(t, m, call("DEL", "other", "other"))
			mustBeEmpty(t, m, c.world)
		})
	}
}

func TestWriteFileLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	if err := diskfile.Write(filepath.Join(dir, "a"), []byte("1"), true); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := diskfile.Write(filepath.Join(dir, "b"), []byte("1"), true); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("files: %v", files)
	}
}
