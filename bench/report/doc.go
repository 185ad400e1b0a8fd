// Package report shows what a run found: as a table for a terminal, as a page of
// charts, and as what moved between two runs. It reads package result's types and
// knows nothing of how they came about.
package report
