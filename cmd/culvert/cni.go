package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"culvert/ctrl/cniconf"
)

func (a *app) cniCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cni",
		Short: "Put the CNI plugin in place",
		Args:  cobra.NoArgs,
	}
	c.AddCommand(cniInstallCommand())
	return c
}

func cniInstallCommand() *cobra.Command {
	program, dir := "", ""
	c := &cobra.Command{
		Use:   "install",
		Short: "Copy the CNI plugin to where the container runtime looks for it",
		Long: "Copy culvert-cni into the runtime's directory of plugins. One that runs from there goes on, and one\n" +
			"that is the same stays. Its configuration is put in place by culvertd, once pods can be added (cni.confDir).",
		Example: "  culvert cni install --dir /opt/cni/bin",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if program == "" {
				self, err := os.Executable()
				if err != nil {
					return err
				}
				program = filepath.Join(filepath.Dir(self), cniconf.PluginType)
			}
			changed, err := cniconf.InstallPlugin(program, dir)
			if err != nil {
				return fmt.Errorf("installing the plugin: %w", err)
			}
			done := "is there already"
			if changed {
				done = "installed"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", filepath.Join(dir, filepath.Base(program)), done)
			return nil
		},
	}
	c.Flags().StringVar(&program, "program", "", "the plugin to copy; default culvert-cni beside this program")
	c.Flags().StringVar(&dir, "dir", "/opt/cni/bin", "the runtime's directory of plugins")
	return c
}
