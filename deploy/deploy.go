// Package deploy holds what Culvert is installed with, for tests that install it: the
// files themselves are what counts.
package deploy

import _ "embed"

//go:generate go run -C ../tools/helm . -o ../../deploy/culvert.yaml ../../deploy/helm/culvert kube-system

// Manifest is culvert.yaml: everything that a cluster needs, made from the chart.
//
//go:embed culvert.yaml
var Manifest []byte

// ManifestImage is the image that Manifest names, as `make image` calls it.
const ManifestImage = "localhost/culvert:latest"
