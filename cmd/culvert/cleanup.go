package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"culvert/ctrl/cleanup"
	"culvert/ctrl/config"
)

// defaultStateDir is stateDir's default.
const defaultStateDir = "/var/lib/culvert"

func (a *app) cleanupCommand() *cobra.Command {
	var o cleanup.Options
	var file string
	c := &cobra.Command{
		Use:   "cleanup",
		Short: "Take off this node what Culvert has put there",
		Long: "Remove what Culvert has made on this node, when it is uninstalled: culvert0 with its addresses and\n" +
			"routes, devices of pods and of culvertd that are left, the socket, the state directory, and with\n" +
			"--cni-conf-dir and --cni-bin-dir the CNI configurations that name Culvert's plugin, and the plugin.\n" +
			"Nothing else is touched. Stop culvertd first, and drain the node: cleanup refuses while culvertd runs,\n" +
			"and while there are pods unless it is forced. It may be run again.",
		Example: "  culvert cleanup --dry-run\n  culvert cleanup --cni-conf-dir /etc/cni/net.d --cni-bin-dir /opt/cni/bin",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Socket = a.socket
			if file != "" {
				cfg, err := config.Load(file, os.Environ())
				if err != nil {
					return err
				}
				if !cmd.Flags().Changed("socket") {
					o.Socket = cfg.Socket
				}
				if !cmd.Flags().Changed("state-dir") {
					o.StateDir = cfg.StateDir
				}
			}
			items, err := cleanup.Run(cmd.Context(), o)
			if items == nil {
				return err
			}
			if shown := emit(a, cmd, items, printCleanup(o.DryRun)); shown != nil {
				return shown
			}
			return err
		},
	}
	flags := c.Flags()
	flags.StringVar(&file, "config", "", "culvertd's configuration `FILE`, for its socket and stateDir")
	flags.StringVar(&o.StateDir, "state-dir", defaultStateDir, "culvertd's state directory")
	flags.StringVar(&o.CNIConfDir, "cni-conf-dir", "", "remove the CNI configurations in `DIR` that name Culvert's plugin")
	flags.StringVar(&o.CNIBinDir, "cni-bin-dir", "", "remove culvert-cni from `DIR`")
	flags.BoolVar(&o.Force, "force", false, "take the network of pods that are there, too")
	flags.BoolVar(&o.DryRun, "dry-run", false, "say what would be removed, and remove nothing")
	return c
}

// printCleanup prints a line for each thing.
func printCleanup(dry bool) func(io.Writer, []cleanup.Item) {
	return func(w io.Writer, items []cleanup.Item) {
		if len(items) == 0 {
			fmt.Fprintln(w, "nothing of Culvert is on this node")
		}
		for _, i := range items {
			done := "removed"
			switch {
			case dry:
				done = "would remove"
			case !i.Removed:
				done = "could not remove"
			}
			fmt.Fprintf(w, "%s %s %s (%s)\n", done, i.Kind, i.Name, i.What)
		}
	}
}
