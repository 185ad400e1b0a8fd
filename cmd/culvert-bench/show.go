package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"culvert/bench/report"
	"culvert/bench/result"

	"github.com/spf13/cobra"
)

// writePage writes the page of charts, making its directory.
func writePage(path string, r *result.Report) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := report.HTML(f, r); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

func newReport() *cobra.Command {
	var page string
	cmd := &cobra.Command{
		Use:   "report RESULTS.json",
		Short: "Show a run's results again, and write its page of charts",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := result.Read(args[0])
			if err != nil {
				return failed(err)
			}
			if page != "" {
				if err := writePage(page, r); err != nil {
					return failed(err)
				}
			}
			return failed(report.Table(cmd.OutOrStdout(), r, terminalWidth(cmd.OutOrStdout())))
		},
	}
	cmd.Flags().StringVar(&page, "html", "", "write the page of charts to this file, too")
	return cmd
}

func newCompare() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "compare OLD.json NEW.json",
		Short: "Say what moved between two runs beyond noise",
		Long: "compare puts the medians of two runs side by side and says, by the statistics of benchstat, which of them moved\n" +
			"beyond what chance does. Ratios to peers are compared, too: a machine that was busy in one of the runs moves\n" +
			"all devices alike.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("output %q: must be text or json", output)
			}
			before, err := result.Read(args[0])
			if err != nil {
				return failed(err)
			}
			after, err := result.Read(args[1])
			if err != nil {
				return failed(err)
			}
			if output == "json" {
				return failed(report.CompareJSON(cmd.OutOrStdout(), before, after))
			}
			_, err = report.Compare(cmd.OutOrStdout(), before, after)
			return failed(err)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}
