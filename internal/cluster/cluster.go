// Package cluster tests Culvert as the network of a real Kubernetes cluster: etcd, API
// server, controller manager and scheduler on one machine, kubelet, containerd and
// kube-proxy on two nodes, each with namespaces of its own for everything. Culvert is
// installed as deploy/ says. docs/cluster-tests.md has more.
//
//	make test-cluster
//
// There are only tests here, behind the build tag cluster.
package cluster
