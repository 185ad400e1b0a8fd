// Package run carries out experiments: every device under test takes its turn in
// every round, A B A B, so that whatever else the machine does hits all alike, and
// what each turn finds becomes a result.Report.
//
// It knows neither what is measured nor how: an Experiment brings that along. What
// it takes care of is order, patience with a busy machine, failures, progress, and
// an end that leaves nothing behind.
package run
