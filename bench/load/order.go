package load

import (
	"math"
	"math/rand/v2"
	"sort"
)

// pattern interleaves the sizes by their weights, the same way each time: the
// next is the one that is furthest behind its share.
func pattern(sizes []Size) []int {
	sum := 0
	for _, s := range sizes {
		sum += s.Weight
	}
	lens := make([]int, 0, sum)
	behind := make([]int, len(sizes))
	for range sum {
		next := 0
		for i, s := range sizes {
			behind[i] += s.Weight
			if behind[i] > behind[next] {
				next = i
			}
		}
		behind[next] -= sum
		lens = append(lens, sizes[next].Len)
	}
	return lens
}

// draws are numbers of flows, popular ones often: number k comes in proportion
// to 1/(k+1)^s.
func draws(n, flows int, s float64, seed uint64) []uint32 {
	upTo := make([]float64, flows)
	sum := 0.0
	for k := range upTo {
		sum += math.Pow(float64(k+1), -s)
		upTo[k] = sum
	}
	r := rand.New(rand.NewPCG(seed, 0))
	all := make([]uint32, n)
	for i := range all {
		all[i] = uint32(min(sort.SearchFloat64s(upTo, r.Float64()*sum), flows-1))
	}
	return all
}
