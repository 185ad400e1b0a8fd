// Command helm prints the manifest that a Helm chart gives, checked against the chart's
// schema: what deploy/culvert.yaml is made of. Its first line has the digest of the chart and
// of what follows, by which a test sees without Helm that neither was changed alone.
//
//	go run . [-o FILE] CHART NAMESPACE [VALUES-FILE...]
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

func main() {
	out := flag.String("o", "/dev/stdout", "`FILE` to write")
	flag.Parse()
	text, err := manifest(flag.Args())
	if err == nil {
		err = os.WriteFile(*out, text, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "helm:", err)
		os.Exit(1)
	}
}

// order is that of the templates in the manifest.
var order = []string{"rbac.yaml", "configmap.yaml", "daemonset.yaml"}

func manifest(args []string) ([]byte, error) {
	if len(args) < 2 {
		return nil, errors.New("usage: helm CHART NAMESPACE [VALUES-FILE...]")
	}
	c, err := loader.LoadDir(args[0])
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	for _, file := range args[2:] {
		more, err := chartutil.ReadValuesFile(file)
		if err != nil {
			return nil, err
		}
		values = chartutil.CoalesceTables(more, values)
	}
	body, err := render(c, args[1], values)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	if err := addFiles(sum, args[0]); err != nil {
		return nil, err
	}
	sum.Write(body)
	head := fmt.Sprintf("# Made from deploy/helm/culvert by make generate; sha256 of both: %x\n", sum.Sum(nil))
	return append([]byte(head), body...), nil
}

// render is the chart's objects, in order.
func render(c *chart.Chart, namespace string, values map[string]any) ([]byte, error) {
	release := chartutil.ReleaseOptions{Name: c.Name(), Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	for name := range rendered {
		if base := path.Base(name); strings.HasSuffix(base, ".yaml") && !slices.Contains(order, base) {
			return nil, fmt.Errorf("%s has no place in the manifest: name it in order", name)
		}
	}
	var b bytes.Buffer
	for i, name := range order {
		if i > 0 {
			fmt.Fprintln(&b, "---")
		}
		fmt.Fprintln(&b, strings.TrimSpace(rendered[path.Join(c.Name(), "templates", name)]))
	}
	return b.Bytes(), nil
}

// addFiles adds names and content of every file below dir, in order.
func addFiles(sum hash.Hash, dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(name) // of what a link leads to, as Helm does
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, name)
		fmt.Fprintf(sum, "%s %d\n%s", relative, len(content), content)
		return err
	})
}
