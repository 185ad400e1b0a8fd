//go:build !race

package e2e

// raceBuild says that the tests run under the race detector: so do the agents.
const raceBuild = false

// slower is by how much to make transfers smaller.
const slower = 1
