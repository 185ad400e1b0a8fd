package main

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
)

func (a *app) ipamCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ipam",
		Short: "The pod CIDRs or blocks of this node, and how many of their addresses are used",
		Long: "List where this node's pods get addresses from. Cooling ones were released a short while ago\n" +
			"(ipam.cooldown) and are given last; reserved ones are given to nobody.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return show(a, cmd, "/v1/ipam", printIPAM) },
	}
	c.AddCommand(&cobra.Command{
		Use:   "show ADDRESS",
		Short: "Everything about one address: whose it is and since when",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := netip.ParseAddr(args[0]); err != nil {
				return &usageError{fmt.Errorf("%q is no IP address", args[0])}
			}
			return show(a, cmd, "/v1/ipam/address?address="+url.QueryEscape(args[0]), printAddress)
		},
	}, a.ipamCheckCommand())
	return c
}

func printIPAM(w io.Writer, v api.IPAM) {
	rows := make([][]string, len(v.Pools))
	for i, p := range v.Pools {
		rows[i] = []string{p.CIDR, p.Kind, count(p.Size), count(p.Used), count(p.Cooling), count(p.Free), count(p.Reserved)}
	}
	columns(w, "CIDR KIND SIZE USED COOLING FREE RESERVED", rows)
}

func printAddress(w io.Writer, v api.IPAMAddress) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	pod := v.Name
	if v.Namespace != "" {
		pod = v.Namespace + "/" + v.Name
	}
	since := "since"
	if v.State == "cooling" || v.State == "free" {
		since = "released"
	}
	for _, kv := range [][2]string{
		{"address", v.Address}, {"state", v.State}, {"why", v.Why}, {cmp.Or(v.Kind, "cidr"), v.CIDR}, {"pod", pod}, {"podstate", v.PodState},
		{"container", v.ContainerID}, {"ifname", v.IfName}, {"port", v.Port}, {"netns", v.NetNS}, {"handle", v.Handle},
		{since, when(v.Since)}, {"free at", when(v.Until)},
	} {
		if kv[1] != "" {
			fmt.Fprintln(t, kv[0]+"\t"+kv[1])
		}
	}
	_ = t.Flush() // writing to standard output: there is nobody else to tell
}

func when(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// findingsError is what 'ipam check' ends with when something is left to do.
type findingsError struct{ count int }

func (e *findingsError) Error() string {
	if e.count == 1 {
		return "1 finding"
	}
	return fmt.Sprintf("%d findings", e.count)
}

func (a *app) ipamCheckCommand() *cobra.Command {
	var req api.IPAMCheckRequest
	c := &cobra.Command{
		Use:   "check",
		Short: "Compare addresses with pods, links, namespaces, and Calico's blocks",
		Long: "Compare who has which address: the allocator, the pods' records, their links and network namespaces, the Pods\n" +
			"at the API server, and in calico mode the blocks and handles. Prints what does not fit and what to do; exits with\n" +
			"1 if anything is left to do. What is only passing is not told: it is looked at twice.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var v api.IPAMCheck
			if err := a.client().Post(cmd.Context(), "/v1/ipam/check", &req, &v); err != nil {
				return err
			}
			if err := emit(a, cmd, v, printComparison); err != nil {
				return err
			}
			left := 0
			for i := range v.Findings {
				if !v.Findings[i].Repaired {
					left++
				}
			}
			if left > 0 {
				return &findingsError{left}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&req.Repair, "repair", false, "free what is certainly nobody's: addresses without a record, records whose link and namespace are gone")
	return c
}

func printComparison(w io.Writer, v api.IPAMCheck) {
	fmt.Fprintln(w, "compared: "+strings.Join(v.Compared, ", "))
	for _, s := range v.Skipped {
		fmt.Fprintln(w, "skipped: "+s)
	}
	for _, f := range v.Findings {
		do := f.Do
		if f.Repaired {
			do = "repaired"
		}
		fmt.Fprintln(w, line(f.Kind, f.Address, f.Owner)+": "+f.What+"; "+do)
	}
}
