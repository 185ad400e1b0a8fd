package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
	"culvert/internal/version"
)

// app is what the commands share: the persistent flags.
type app struct {
	socket string
	output enum
}

func (a *app) client() *api.Client { return api.NewClient(a.socket) }
func (a *app) json() bool          { return a.output.value == "json" }

func newRoot() *cobra.Command {
	a := &app{output: enum{value: "table", allowed: []string{"table", "json"}}}
	root := &cobra.Command{
		Use:   "culvert",
		Short: "See and steer the Culvert dataplane of this node",
		Long: "culvert asks the culvertd of this node over its unix socket.\n" +
			"A noun alone lists: 'culvert route', 'culvert flow', 'culvert drops'.",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("culvert {{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	socket := os.Getenv("CULVERT_SOCKET")
	if socket == "" {
		socket = api.DefaultSocket
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.socket, "socket", socket, "culvertd's unix socket; $CULVERT_SOCKET sets the default")
	flags.VarP(&a.output, "output", "o", "output format: table or json")
	completeEnum(root, "output", a.output.allowed)
	root.AddCommand(
		a.statusCommand(), a.portCommand(), a.routeCommand(), a.fdbCommand(), a.neighCommand(),
		a.peerCommand(), a.podCommand(), a.ipamCommand(), a.flowCommand(), a.dropsCommand(), a.explainCommand(),
		a.traceCommand(), a.captureCommand(), a.configCommand(), a.cniCommand(), a.doctorCommand(), a.cleanupCommand(), a.labCommand(), a.versionCommand(),
	)
	for _, c := range root.Commands() {
		ran(c)
	}
	return root
}

// ran wraps what the command and those below it return, so that run can tell
// their errors from cobra's.
func ran(c *cobra.Command) {
	for _, sub := range c.Commands() {
		ran(sub)
	}
	if inner := c.RunE; inner != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if err := inner(cmd, args); err != nil {
				return &doneError{err}
			}
			return nil
		}
	}
}

// enum is a flag with a closed set of values.
type enum struct {
	value   string
	allowed []string
}

func (e *enum) String() string { return e.value }
func (e *enum) Type() string   { return strings.Join(e.allowed, "|") }

func (e *enum) Set(s string) error {
	if !slices.Contains(e.allowed, s) {
		return fmt.Errorf("must be one of %s", strings.Join(e.allowed, ", "))
	}
	e.value = s
	return nil
}

// completeEnum offers the values of a flag to the shell.
func completeEnum(c *cobra.Command, flag string, values []string) {
	err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // the flag does not exist: a mistake in this package
	}
}
