package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"culvert/ctrl/api"
)

//go:generate go test -run TestCommandPage -update .

const pageHead = `# The culvert command

` + "`culvert`" + ` asks the culvertd of its node over a unix socket. A noun alone lists. Text goes to standard output,
diagnostics to standard error. This page is generated from the commands' own help by ` + "`make generate`" + `.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the agent said no, or does not answer |
| 2 | wrong usage |
| 3 | ` + "`status`" + ` of an agent that is not ready |

Every command takes these flags:

`

// TestCommandPage: docs/cli.md says what the commands' help says.
func TestCommandPage(t *testing.T) {
	t.Setenv("CULVERT_SOCKET", api.DefaultSocket) // the page shows defaults
	root := newRoot()
	var b bytes.Buffer
	b.WriteString(pageHead)
	writeFlags(&b, root.PersistentFlags())
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Hidden {
				continue
			}
			writeCommand(&b, sub)
			walk(sub)
		}
	}
	walk(root)
	const page = "../../docs/cli.md"
	if *update {
		if err := os.WriteFile(page, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b.Bytes()) {
		t.Errorf("%s is not what the commands say; run 'make generate'", page)
	}
}

func writeCommand(b *bytes.Buffer, c *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n", strings.TrimSuffix(c.UseLine(), " [flags]"))
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	fmt.Fprintf(b, "%s\n", text)
	if c.Example != "" {
		fmt.Fprintf(b, "\n%s\n", strings.ReplaceAll(c.Example, "  culvert", "    culvert"))
	}
	if c.LocalNonPersistentFlags().HasAvailableFlags() {
		b.WriteString("\n")
		writeFlags(b, c.LocalNonPersistentFlags())
	}
}

func writeFlags(b *bytes.Buffer, flags *pflag.FlagSet) {
	b.WriteString("| flag | default | meaning |\n|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, strings.ReplaceAll(f.DefValue, "|", "\\|"), f.Usage)
	})
}
