package main

import (
	"os"
	"path/filepath"

	"culvert/internal/version"

	"github.com/spf13/cobra"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "culvert-bench",
		Short: "Measure Culvert side by side with the kernel and Open vSwitch",
		Long: "culvert-bench builds small networks in namespaces of its own, puts a device under test into each, Culvert or\n" +
			"one of its peers, loads it, and counts what it delivers. The devices take turns, A B A B, so that whatever\n" +
			"else the machine does hits all alike.",
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(newRun(), newList(), newReport(), newCompare())
	return root
}

// ownDir is the directory of this program, where make build puts the others, too.
func ownDir() string {
	path, err := os.Executable()
	if err != nil {
		return "."
	}
	return filepath.Dir(path)
}
