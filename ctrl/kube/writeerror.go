package kube

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// writeError says what was tried, and what to do where that is known: resource is such
// as nodes/status, object such as Node worker-1.
func writeError(err error, verb, resource, object string) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s of %s: the permission to %s %s is missing: %w; grant it as deploy/rbac.yaml does", verb, object, verb, resource, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s of %s: the API server does not know who asks: %w; look at the service account's token or the kubeconfig", verb, object, err)
	}
	return fmt.Errorf("%s of %s: %w", verb, object, err)
}
