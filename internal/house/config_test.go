package house

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/ctrl/config"
)

// TestConfigurationPage: docs/configuration.md has every key with its default.
func TestConfigurationPage(t *testing.T) {
	c, err := config.Parse("none", nil, []string{"NODE_NAME=worker-1"})
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{} // key to default
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, "|"); len(cells) == 5 && strings.HasPrefix(cells[1], " `") {
			rows[strings.Trim(cells[1], " `")] = strings.Trim(cells[2], " `")
		}
	}
	for _, s := range c.Settings() {
		row, ok := rows[s.Key]
		if !ok {
			t.Errorf("docs/configuration.md has no row for %s", s.Key)
			continue
		}
		delete(rows, s.Key)
		switch want := fmt.Sprint(s.Value); {
		case s.Key == "node", want == "", want == "[]": // said in words
		case row != want:
			t.Errorf("docs/configuration.md: the default of %s is %q, want %q", s.Key, row, want)
		}
	}
	for key := range rows {
		t.Errorf("docs/configuration.md has a row for %s, which is no key", key)
	}
}
