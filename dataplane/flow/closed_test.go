package flow

import "testing"

// Who asks a table that is closed, as the command line may while the agent ends, finds
// nothing.
func TestClosedTable(t *testing.T) {
	tab, err := New(64)
	if err != nil {
		t.Fatal(err)
	}
	w := tab.Watch()
	if err := tab.Close(); err != nil {
		t.Fatal(err)
	}
	k := testKey(6, 1, 2)
	if _, _, ok := tab.Find(&k); ok {
		t.Error("found a flow")
	}
	if n, missed := w.Read(make([]Event, 4)); n != 0 || missed != 0 {
		t.Errorf("%d events, %d missed", n, missed)
	}
	w.Close()
	tab.Watch().Close()
	if s := tab.Stats(); s.Len != 0 || tab.Len() != 0 || tab.Flush(nil) != 0 || tab.Forget(nil) != 0 {
		t.Errorf("%+v", s)
	}
	for range tab.Range {
		t.Error("a flow")
	}
}
