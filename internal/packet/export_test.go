package packet

// Reseed makes hashes those of a process that drew its secret from random.
func Reseed(random func() uint64) { secret = newSecret(random) }
