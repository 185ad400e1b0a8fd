package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// show asks path for a T and prints it: as JSON, or by table.
func show[T any](a *app, cmd *cobra.Command, path string, table func(io.Writer, T)) error {
	var v T
	if err := a.client().Get(cmd.Context(), path, &v); err != nil {
		return err
	}
	return emit(a, cmd, v, table)
}

// emit prints v as JSON, or by table.
func emit[T any](a *app, cmd *cobra.Command, v T, table func(io.Writer, T)) error {
	w := cmd.OutOrStdout()
	if a.json() {
		return printJSON(w, v)
	}
	table(w, v)
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// columns prints rows under a heading, aligned.
func columns(w io.Writer, heading string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(strings.Fields(heading), "\t"))
	for _, row := range rows {
		for i := range row {
			row[i] = orNA(row[i])
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	_ = t.Flush() // writing to standard output: there is nobody else to tell
}

// orNA is s, or what stands in a column that has nothing to say.
func orNA(s string) string {
	if s == "" {
		return "N/A"
	}
	return s
}

// line joins the words that are not empty.
func line(words ...string) string {
	kept := words[:0]
	for _, word := range words {
		if word != "" {
			kept = append(kept, word)
		}
	}
	return strings.Join(kept, " ")
}

// pair is "key value", or nothing where there is no value.
func pair(key, value string) string {
	if value == "" {
		return ""
	}
	return key + " " + value
}
