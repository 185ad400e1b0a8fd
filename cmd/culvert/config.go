package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
)

func (a *app) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "The configuration in force and where each key was set",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(a, cmd, "/v1/config", printConfig)
		},
	}
}

func printConfig(w io.Writer, v api.ConfigView) {
	fmt.Fprintf(w, "file: %s\n\n", orNA(v.File))
	rows := make([][]string, len(v.Settings))
	for i, s := range v.Settings {
		rows[i] = []string{s.Key, settingText(s.Value), s.From}
	}
	columns(w, "KEY VALUE FROM", rows)
	if len(v.Objects) == 0 {
		return
	}
	fmt.Fprintln(w)
	rows = rows[:0]
	for _, o := range v.Objects {
		state := "in force"
		if o.Error != "" {
			state = o.Error
		}
		rows = append(rows, []string{o.Name, strconv.Itoa(o.Objects), state})
	}
	columns(w, "SOURCE OBJECTS STATE", rows)
}

// settingText is a decoded JSON value as a person would write it in the file.
func settingText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []any:
		words := make([]string, len(v))
		for i := range v {
			words[i] = settingText(v[i])
		}
		return strings.Join(words, ",")
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}
