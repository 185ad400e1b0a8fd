package sample

import "slices"

// Median is the middle value, or the mean of the two in the middle. There must
// be a value.
func Median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Column is one number of each of several things.
func Column[T any](all []T, f func(T) float64) []float64 {
	values := make([]float64, len(all))
	for i, x := range all {
		values[i] = f(x)
	}
	return values
}
