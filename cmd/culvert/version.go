package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"culvert/internal/version"
)

// build is the JSON form of the version.
type build struct {
	Version string `json:"version"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "The version of this command",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return emit(a, cmd, build{version.String()}, func(w io.Writer, b build) {
				fmt.Fprintln(w, "culvert", b.Version)
			})
		},
	}
}
