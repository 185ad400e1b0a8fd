package flavour

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"testing"
	"time"

	"culvert/ctrl/source"
)

func itoa(i int) string { return strconv.Itoa(i) }

func sameMap(t *testing.T, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("published\n%s\nwant\n%s", mapText(got), mapText(want))
	}
}

func mapText(m map[string]string) (out string) {
	for k, v := range m {
		out += fmt.Sprintf("  %s: %s\n", k, v)
	}
	return out
}

// manifests reads a directory of manifests, all of which are fine.
func manifests(t *testing.T, dir string) (objs *source.Objects) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = source.NewDir(dir, nil).Run(ctx, func(o *source.Objects) { objs = o; cancel() }, func(errs []error) {
		for _, err := range errs {
			t.Error(err)
		}
	})
	if objs == nil {
		t.Fatalf("%s: no objects", dir)
	}
	return objs
}
