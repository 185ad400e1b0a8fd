// Package sample has what all measurements share: the machine that they are made
// on, how busy it is, and the middle of a number of values. It knows nothing of
// what is measured.
package sample
