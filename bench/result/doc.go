// Package result is what a run of the benchmark found: the types of
// results.json, the metrics that it may hold, and what follows from them,
// medians, spreads and ratios.
//
// It knows no device under test and no network. Who measures fills a Report;
// who shows or compares one reads it: neither knows the other.
package result
