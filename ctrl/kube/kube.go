// Package kube is Culvert's side of a Kubernetes API server: the source of
// objects, what this node publishes there, and the addresses that it takes there.
//
// It alone imports client-go. What the objects mean is decided above it, by the
// flavours; what they look like, in ctrl/source.
package kube

import (
	"errors"
	"fmt"
	"os"

	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Limits of what one node asks of the API server. Thousands of nodes do the same.
const (
	queriesPerSecond = 20
	burst            = 40
)

// Client reaches an API server. It is safe for concurrent use.
type Client struct {
	config *rest.Config
	// core speaks protobuf.
	core    corev1.CoreV1Interface
	dynamic dynamic.Interface
	meta    metadata.Interface
}

// NewClient prepares requests as kubeconfig says; empty: as a pod of the cluster,
// else as the files in $KUBECONFIG say. No request is made yet.
func NewClient(kubeconfig, userAgent string) (*Client, error) {
	config, err := restConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.UserAgent, config.WarningHandler = userAgent, rest.NoWarnings{}
	return clientFor(config)
}

// clientFor prepares requests with a configuration of client-go's.
func clientFor(config *rest.Config) (*Client, error) {
	config.QPS, config.Burst = queriesPerSecond, burst
	var err error
	c := &Client{config: config}
	proto := rest.CopyConfig(config)
	proto.AcceptContentTypes, proto.ContentType = "application/vnd.kubernetes.protobuf,application/json", "application/vnd.kubernetes.protobuf"
	if c.core, err = corev1.NewForConfig(proto); err == nil {
		c.dynamic, err = dynamic.NewForConfig(config)
	}
	if err == nil {
		c.meta, err = metadata.NewForConfig(config)
	}
	if err != nil {
		return nil, fmt.Errorf("API server %s: %w; check the kubeconfig", config.Host, err)
	}
	return c, nil
}

// Host is the API server's address.
func (c *Client) Host() string { return c.config.Host }

func restConfig(kubeconfig string) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err == nil {
			return config, nil
		}
		files := os.Getenv(clientcmd.RecommendedConfigPathEnvVar)
		if files == "" {
			if errors.Is(err, rest.ErrNotInCluster) {
				err = errors.New("culvertd does not run as a pod of a cluster, and neither kubeconfig nor $KUBECONFIG names a file")
			}
			return nil, fmt.Errorf("no API server: %w", err)
		}
		rules = clientcmd.NewDefaultClientConfigLoadingRules()
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w; name a file that kubectl can use", err)
	}
	return config, nil
}
