package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"culvert/internal/lab"
)

// labView is the JSON form of a lab, in the words of the other commands.
type labView struct {
	Name    string        `json:"name"`
	Created time.Time     `json:"created"`
	MTU     int           `json:"mtu"`
	VNI     uint32        `json:"vni"`
	Port    uint16        `json:"port"`
	Dir     string        `json:"dir"`
	Nodes   []labNodeView `json:"nodes"`
}

// demoView is the JSON form of a demo, whose story goes to standard error.
type demoView struct {
	OK       bool     `json:"ok"`
	Failures []string `json:"failures"`
}

type labNodeView struct {
	Name    string       `json:"name"`
	Kind    string       `json:"kind"`
	NetNS   string       `json:"netns"`
	Dst     string       `json:"dst"`
	PodCIDR string       `json:"podcidr"`
	All     []string     `json:"podcidrs"`
	Socket  string       `json:"socket,omitempty"`
	Log     string       `json:"log,omitempty"`
	Pods    []labPodView `json:"pods"`
}

type labPodView struct {
	Name  string   `json:"name"`
	NetNS string   `json:"netns"`
	Addr  string   `json:"addr"`
	All   []string `json:"addrs"`
}

func viewLabs(labs []*lab.Lab) []labView {
	views := make([]labView, len(labs))
	for i, l := range labs {
		views[i] = viewLab(l)
	}
	return views
}

func viewLab(l *lab.Lab) labView {
	v := labView{Name: l.Name, Created: l.Created, MTU: l.MTU, VNI: l.VNI, Port: l.Port, Dir: l.Dir, Nodes: []labNodeView{}}
	for _, n := range l.Nodes {
		node := labNodeView{Name: n.Name, Kind: string(n.Kind), NetNS: n.Netns, Dst: n.Addr.String(),
			PodCIDR: n.PodCIDR.String(), All: texts(n.PodCIDRs), Socket: n.Socket, Log: n.LogFile, Pods: []labPodView{}}
		for _, p := range n.Pods {
			node.Pods = append(node.Pods, labPodView{Name: p.Name, NetNS: p.Netns, Addr: p.Addr.String(), All: texts(p.Addrs)})
		}
		v.Nodes = append(v.Nodes, node)
	}
	return v
}

// texts are addresses or prefixes as text.
func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}

// printLabs shows what is there and how to get at it.
func printLabs(w io.Writer, labs []labView) {
	for i, l := range labs {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "lab %s: underlay mtu %d, vni %d, dstport %d\n\n", l.Name, l.MTU, l.VNI, l.Port)
		var nodes, pods [][]string
		for _, n := range l.Nodes {
			nodes = append(nodes, []string{n.Name, n.Kind, n.Dst, strings.Join(n.All, ","), n.NetNS, n.Socket})
			for _, p := range n.Pods {
				pods = append(pods, []string{p.Name, n.Name, strings.Join(p.All, ","), p.NetNS})
			}
		}
		columns(w, "NODE KIND ADDRESS PODCIDR NETNS SOCKET", nodes)
		fmt.Fprintln(w)
		columns(w, "POD NODE ADDRESS NETNS", pods)
		fmt.Fprintf(w, "\n%s", hints(&l))
	}
}

// hints are the commands that someone types next.
func hints(l *labView) string {
	var b strings.Builder
	first, last := &l.Nodes[0], &l.Nodes[len(l.Nodes)-1]
	if len(first.Pods) > 0 && len(last.Pods) > 0 {
		fmt.Fprintf(&b, "ip netns exec %s ping %s\n", first.Pods[0].NetNS, last.Pods[len(last.Pods)-1].Addr)
	}
	if first.Socket != "" {
		fmt.Fprintf(&b, "culvert --socket %s flow\n", first.Socket)
	}
	fmt.Fprintf(&b, "culvert lab down %s\n", l.Name)
	return b.String()
}
